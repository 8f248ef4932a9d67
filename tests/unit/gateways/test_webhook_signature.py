"""Stripe's signature: over the raw body, of now, with one of our secrets."""

from __future__ import annotations

import pytest
import stripe as sdk
from hypothesis import given
from hypothesis import strategies as st
from support.webhook_payloads import SECRET, stripe_signature

from streamsocial_billing.gateways.paypal.webhook import question
from streamsocial_billing.gateways.stripe.webhook import signed

BODY = b'{"id": "evt_1",  "type": "charge.succeeded"}'
NOW = 1_764_600_000
GOOD = stripe_signature(BODY, SECRET, NOW)
HEX = GOOD.partition("v1=")[2]


@pytest.mark.parametrize("age_s", [-300, -1, 0, 1, 300])
def test_what_stripes_own_sdk_signs_is_signed(age_s: int) -> None:
    """Within 300 s, in either direction: clocks differ."""
    assert signed(BODY, GOOD, [SECRET], NOW + age_s)


@pytest.mark.parametrize("secrets", [["whsec_old", SECRET], [SECRET, "whsec_new"]])
def test_while_secrets_rotate_each_of_them_counts(secrets: list[str]) -> None:
    """Whichever Stripe signs with; it signs with both for a while."""
    assert signed(BODY, GOOD, secrets, NOW)
    assert signed(BODY, f"t={NOW},v1={'0' * 64},v1={HEX},v0={HEX}", secrets, NOW)


@pytest.mark.parametrize(
    ("body", "header", "now"),
    [
        (BODY + b" ", GOOD, NOW), (BODY, GOOD, NOW + 301), (BODY, GOOD, NOW - 301), (BODY, "", NOW),
        (BODY, f"t={NOW + 1},v1={HEX}", NOW), (BODY, f"v1={HEX}", NOW), (BODY, f"t={NOW}", NOW),
        (BODY, f"t={NOW},v0={HEX}", NOW), (BODY, f"t={NOW},t={NOW},v1={HEX}", NOW),
        (BODY, f"v1,t={NOW},v1={HEX}", NOW),
        (BODY, f"t=-{NOW},v1={HEX}", NOW), (BODY, f"t= {NOW}x,v1={HEX}", NOW),
        (BODY, f"t={NOW},v1={HEX.upper()}", NOW), (BODY, f"t={NOW},v1={HEX[:-1]}", NOW),
        (BODY, f"t={'9' * 400},v1={HEX}", NOW), (BODY, stripe_signature(BODY, "whsec_other", NOW), NOW),
    ],
)  # fmt: skip
def test_anything_else_is_not(body: bytes, header: str, now: int) -> None:
    """Another body, an old time, another secret, a header that is none."""
    assert not signed(body, header, [SECRET], now)


def test_without_a_secret_nothing_is_signed() -> None:
    """An empty list is no reason to believe."""
    assert not signed(BODY, GOOD, [], NOW)


@given(st.text(st.characters(), max_size=300), st.binary(max_size=50))
def test_any_header_is_refused_without_an_error(header: str, body: bytes) -> None:
    """The parser has no exception of its own."""
    assert not signed(body, header, [SECRET], NOW)


PARTS = st.sampled_from(
    ["t", "v1", "v0", "x", f"t={NOW}", f"v1={HEX}", "=", "", " ", "v1=\u00e9", "v1=\udcff"]
)


@given(st.lists(PARTS, max_size=6).map(",".join))
def test_what_we_take_stripes_sdk_takes_too(header: str) -> None:
    """We are never looser than the SDK about a header made of known parts.

    Outside ASCII the SDK (16.1) ends in a TypeError where a good signature stands beside.
    """
    if signed(BODY, header, [SECRET], NOW) and header.isascii():
        stripped = ",".join(part.strip() for part in header.split(","))
        assert sdk.WebhookSignature.verify_header(BODY, stripped, SECRET)


@given(st.dictionaries(st.sampled_from(["PAYPAL-AUTH-ALGO", "PAYPAL-CERT-URL"]), st.text()))
def test_paypals_headers_are_complete_or_no_question(headers: dict[str, str]) -> None:
    """PayPal is not asked about what cannot be its own."""
    assert question(headers) is None
