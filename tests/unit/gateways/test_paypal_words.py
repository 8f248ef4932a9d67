"""Our words on PayPal's objects: never above 127 characters, read back whole."""

from hypothesis import given
from hypothesis import strategies as st

from streamsocial_billing.domain.gateway_calls import Owner
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.paypal.own_fields import MOST, custom_ids, words_of

IDS = st.text("abcXYZ019_-", min_size=1, max_size=64) | st.text("qW7_-", min_size=60, max_size=64)
UUID = "6f1c2f0e-2b7a-4a57-9d3c-0a1b2c3d4e5f"


@given(IDS, IDS, st.sampled_from(["charge", "refund"]))
def test_words_of_any_ids_fit_and_are_read_back(user_id: str, payment_id: str, action: str) -> None:
    """The reference is in `invoice_id`; each shape that was ever sent is understood."""
    ref = gateway_key_of(user_id, action, payment_id)
    shapes = custom_ids(ref, user_id, payment_id)

    assert len(shapes[0]) <= MOST == 127
    assert f"{ref}:{user_id}:{payment_id}" == shapes[-1]
    assert len(shapes) == len(set(shapes))
    for custom in shapes:
        assert Owner(user_id, payment_id, ref) == words_of(custom, ref)


def test_the_shapes_are_pinned() -> None:
    """Calls of earlier releases stand at PayPal with them; another one needs another version."""
    ref = gateway_key_of("u1", "charge", "p1")
    assert [f"{ref}:u1:p1"] == custom_ids(ref, "u1", "p1")
    ref = gateway_key_of(UUID, "refund", UUID)
    assert [f"{UUID}:{UUID}", f"{ref}:{UUID}:{UUID}"] == custom_ids(ref, UUID, UUID)
    ref = gateway_key_of("u" * 64, "refund", "p" * 64)
    assert ["u" * 64 + ":" + "p" * 62, f"{ref}:{'u' * 64}:{'p' * 64}"] == custom_ids(ref, "u" * 64, "p" * 64)


def test_words_that_the_reference_does_not_prove_are_nobody_s() -> None:
    """Another shop's words may look like ours."""
    ref = gateway_key_of("u" * 64, "charge", "p" * 64)
    for custom, invoice in [
        ("alice:order-1", None), ("alice:order-1", "WC-123"), ("alice:order-1", ref), ("alice", ref),
        (f"{'u' * 64}:{'p' * 61}", ref), (f"{'v' * 64}:{'p' * 62}", ref), (None, ref), (7, ref),
        ("a:b:c:d", ref),
    ]:  # fmt: skip
        assert words_of(custom, invoice) is None
