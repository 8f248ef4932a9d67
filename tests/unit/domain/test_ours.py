"""Ours is what bears our reference, wherever the gateway shows it."""

from __future__ import annotations

import pytest

from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.references import is_our_reference, kind_of_reference, our_reference

KEY = gateway_key_of("ann", "charge", "p-1")


@pytest.mark.parametrize(
    "said", [(KEY,), (f"{KEY}:ann:p-1",), (None, KEY), ("WC-123", f"{KEY}"), (7, f"{KEY}:ann"), (f"{KEY} ",)]
)
def test_a_reference_alone_is_enough(said: tuple[object, ...]) -> None:
    """In any field, with our other words or without: PayPal's custom_id is cut down to it."""
    assert KEY == our_reference(*said)


@pytest.mark.parametrize(
    "said",
    [(), (None,), ("",), ("WC-123",), ("ss1_x",), (KEY[:-1],), (KEY + "0",), (KEY.upper(),), (f"x{KEY}",),
     (["ss1_"],), ("ss2" + KEY[3:],)],
)  # fmt: skip
def test_what_only_looks_like_ours_is_not(said: tuple[object, ...]) -> None:
    """Another shop's words on the same account, a reference that is cut off or made up."""
    assert our_reference(*said) is None


def test_a_reference_is_that_of_its_user_and_payment() -> None:
    """And says whether the object was ordered as a charge or as a refund."""
    assert "charge" == kind_of_reference(KEY, "ann", "p-1")
    assert "refund" == kind_of_reference(gateway_key_of("ann", "refund", "p-1"), "ann", "p-1")
    assert kind_of_reference(KEY, "bob", "p-1") is None
    assert kind_of_reference("WC-123", "ann", "p-1") is None
    assert is_our_reference(KEY)
    assert not is_our_reference(f"{KEY}:ann:p-1")
