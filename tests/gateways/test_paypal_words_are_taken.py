"""Charges and refunds with the longest ids at a PayPal that takes 127 characters and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.paypal_server import MOST, PayPalServer

from streamsocial_billing.domain.gateway_calls import (
    ChargeRequest,
    KeyMismatch,
    Owner,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.paypal import webhook as paypal
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.provider_event import PaymentIds, ids_of

UUIDS = "6f1c2f0e-2b7a-4a57-9d3c-0a1b2c3d4e5f", "0a1b2c3d-4e5f-4a57-9d3c-6f1c2f0e2b7a"
PAIRS = [("u1", "p1"), UUIDS, ("u" * 63, "p" * 64), ("u" * 64, "p" * 63), ("u" * 64, "p" * 64)]


@pytest.fixture(scope="module")
def server() -> Iterator[PayPalServer]:
    with PayPalServer() as server:
        yield server


def charge_of(user_id: str, payment_id: str, amount: int = 999) -> ChargeRequest:
    """9.99 EUR."""
    key = gateway_key_of(user_id, "charge", payment_id)
    return ChargeRequest(key, user_id, payment_id, "f" * 64, amount, "EUR", "vault-1")


def refund_of(user_id: str, payment_id: str, charge_ref: str) -> RefundRequest:
    """4.00 EUR of it."""
    key = gateway_key_of(user_id, "refund", payment_id)
    return RefundRequest(key, user_id, payment_id, "f" * 64, 400, "EUR", charge_ref)


@pytest.mark.parametrize(("user_id", "payment_id"), PAIRS)
async def test_row_words_of_any_ids_are_taken_and_say_whose_it_is(
    server: PayPalServer, user_id: str, payment_id: str
) -> None:
    """The charge, its refund; whose the capture is when PayPal is asked; whose both are in a webhook."""
    gateway = PayPalGateway("client", "geheim", server.url)
    try:
        charged = await gateway.charge(charge_of(user_id, payment_id), timeout_s=60)
        assert isinstance(charged, Succeeded), charged
        refunded = await gateway.refund(refund_of(user_id, payment_id, charged.gateway_ref), timeout_s=60)
        assert isinstance(refunded, Succeeded), refunded
        again = await gateway.charge(charge_of(user_id, payment_id), timeout_s=60)
        other = await gateway.charge(charge_of(user_id, payment_id, amount=1), timeout_s=60)
        owner = await gateway.owner_of(charged.gateway_ref, timeout_s=60)
    finally:
        await gateway.close()
    capture, refund = server.moved[-2:]

    assert charged == again
    assert isinstance(other, KeyMismatch), other
    assert Owner(user_id, payment_id, gateway_key_of(user_id, "charge", payment_id)) == owner
    assert max(len(capture["custom_id"]), len(refund["custom_id"])) <= MOST
    for kind, it in (("charge", capture), ("refund", refund)):
        name = "PAYMENT.CAPTURE.COMPLETED" if kind == "charge" else "PAYMENT.CAPTURE.REFUNDED"
        about = paypal.subject({"event_type": name, "resource": it})
        assert about is not None
        assert PaymentIds(user_id, payment_id, gateway_key_of(user_id, kind, payment_id)) == ids_of(about)
