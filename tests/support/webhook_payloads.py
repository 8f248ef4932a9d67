"""Messages as Stripe and PayPal send them, with our words in them or without."""

from __future__ import annotations

import time
from typing import Any

import stripe

from streamsocial_billing.domain.payment_identity import gateway_key_of

SECRET = "whsec_first"
USER, PAID, BACK = "alice", "p-1", "r-1"
CHARGE_KEY = gateway_key_of(USER, "charge", PAID)
REFUND_KEY = gateway_key_of(USER, "refund", BACK)
METADATA = {"user_id": USER, "payment_id": PAID, "ref": CHARGE_KEY, "fingerprint": "f" * 64}
REFUND_METADATA = {"user_id": USER, "payment_id": BACK, "ref": REFUND_KEY, "fingerprint": "f" * 64}


def stripe_event(kind: str, it: dict[str, Any], **more: object) -> dict[str, Any]:
    """The envelope."""
    return {
        "id": "evt_1Nabc", "object": "event", "api_version": "2026-01-28", "created": 1_764_600_000,
        "data": {"object": it}, "livemode": False, "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": CHARGE_KEY}, "type": kind, **more,
    }  # fmt: skip


def stripe_charge(**more: object) -> dict[str, Any]:
    """A charge of 9.99 EUR with our metadata."""
    return {
        "id": "ch_1", "object": "charge", "amount": 999, "amount_captured": 999, "amount_refunded": 0,
        "balance_transaction": "txn_1", "captured": True, "created": 1_764_599_990, "currency": "eur",
        "disputed": False, "failure_code": None, "failure_message": None, "metadata": METADATA,
        "outcome": {"network_status": "approved_by_network", "reason": None, "type": "authorized"},
        "paid": True, "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}, "type": "card"},
        "refunded": False, "status": "succeeded", **more,
    }  # fmt: skip


def stripe_intent(**more: object) -> dict[str, Any]:
    """A PaymentIntent of 9.99 EUR with our metadata."""
    return {
        "id": "pi_1", "object": "payment_intent", "amount": 999, "amount_received": 999,
        "cancellation_reason": None, "canceled_at": None, "capture_method": "automatic_async",
        "client_secret": "pi_1_secret_do_not_tell", "created": 1_764_599_990, "currency": "eur",
        "customer": "cus_1", "last_payment_error": None, "latest_charge": "ch_1", "metadata": METADATA,
        "next_action": None, "payment_method": "pm_1", "status": "succeeded", **more,
    }  # fmt: skip


def stripe_refund(**more: object) -> dict[str, Any]:
    """A refund of 3.00 EUR that we ordered."""
    return {
        "id": "re_1", "object": "refund", "amount": 300, "balance_transaction": "txn_2", "charge": "ch_1",
        "created": 1_764_599_999, "currency": "eur", "metadata": REFUND_METADATA, "payment_intent": None,
        "reason": None, "status": "succeeded", **more,
    }  # fmt: skip


def stripe_dispute(**more: object) -> dict[str, Any]:
    """A dispute of that charge; Stripe puts none of our words on it."""
    return {
        "id": "du_1", "object": "dispute", "amount": 999, "charge": "ch_1", "created": 1_764_599_999,
        "currency": "eur", "evidence": {}, "metadata": {}, "reason": "fraudulent",
        "status": "needs_response", **more,
    }  # fmt: skip


def stripe_signature(body: bytes, secret: str = SECRET, at: float | None = None) -> str:
    """The header as Stripe's own SDK makes it."""
    made = stripe.WebhookSignature.generate_signature_header(
        body.decode(), secret, int(time.time() if at is None else at)
    )
    return str(made)


def paypal_event(kind: str, it: dict[str, Any], **more: object) -> dict[str, Any]:
    """The envelope."""
    return {
        "id": "WH-58D329510W468432D-8HN650336L201105X", "create_time": "2025-12-01T14:40:00.000Z",
        "resource_type": "capture", "event_type": kind, "summary": "Payment for 9.99 EUR", "resource": it,
        "event_version": "1.0", "resource_version": "2.0", "links": [], **more,
    }  # fmt: skip


def paypal_capture(**more: object) -> dict[str, Any]:
    """A capture of 9.99 EUR with our words."""
    return {
        "id": "42311647XV020574X", "amount": {"currency_code": "EUR", "value": "9.99"},
        "final_capture": True, "invoice_id": CHARGE_KEY, "custom_id": f"{CHARGE_KEY}:{USER}:{PAID}",
        "status": "COMPLETED", "create_time": "2025-12-01T14:39:58Z",
        "links": [{"href": "https://api.paypal.com/v2/checkout/orders/8U4", "rel": "up", "method": "GET"}],
        **more,
    }  # fmt: skip


def paypal_refund(**more: object) -> dict[str, Any]:
    """A refund of 3.00 EUR that we ordered."""
    up = "https://api.paypal.com/v2/payments/captures/42311647XV020574X"
    return {
        "id": "1JU08902781691411", "amount": {"currency_code": "EUR", "value": "3.00"},
        "invoice_id": REFUND_KEY, "custom_id": f"{REFUND_KEY}:{USER}:{BACK}", "status": "COMPLETED",
        "seller_payable_breakdown": {"gross_amount": {"currency_code": "EUR", "value": "3.00"}},
        "links": [{"href": "https://api.paypal.com/v2/payments/refunds/1JU", "rel": "self", "method": "GET"},
                  {"href": up, "rel": "up", "method": "GET"}],
        **more,
    }  # fmt: skip


def paypal_case(**more: object) -> dict[str, Any]:
    """A customer's dispute of that capture."""
    return {
        "dispute_id": "PP-D-27803", "create_time": "2025-12-01T14:39:00.000Z",
        "disputed_transactions": [
            {"seller_transaction_id": "42311647XV020574X", "buyer": {"name": "A Buyer"},
             "gross_amount": {"currency_code": "EUR", "value": "9.99"}},
        ],
        "dispute_amount": {"currency_code": "EUR", "value": "9.99"},
        "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED", "status": "OPEN", **more,
    }  # fmt: skip


PAYPAL_HEADERS = {
    "PAYPAL-AUTH-ALGO": "SHA256withRSA",
    "PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77",
    "PAYPAL-TRANSMISSION-ID": "d938e770-8046-11e6-8103-6b62a8a99ac4",
    "PAYPAL-TRANSMISSION-SIG": "eDOnWUj9FXOnr2naQnrdL7bhgejVSTwRbwbJ0kuk5wA==",
    "PAYPAL-TRANSMISSION-TIME": "2025-12-01T14:40:01Z",
}
