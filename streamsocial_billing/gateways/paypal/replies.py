"""Judges PayPal's replies to a call that moves money.

`DECLINES` and `REFUND_REFUSALS` are the issues that are a decline, `SOFT` those that another payment, days
later, may not meet (developer.paypal.com/api/rest/reference/orders/v2/errors).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.gateways.http import retry_after_s
from streamsocial_billing.gateways.paypal.amounts import minor_of

Request = ChargeRequest | RefundRequest

SOFT = frozenset({"0500", "5100", "5120", "5650", "INSTRUMENT_DECLINED"})
"""Do not honour, generic decline, insufficient funds, needs authentication, declined instrument."""
DECLINES = frozenset({
    "INSTRUMENT_DECLINED", "PAYER_CANNOT_PAY", "TRANSACTION_REFUSED", "CARD_EXPIRED", "CARD_CLOSED",
    "PAYER_ACCOUNT_LOCKED_OR_CLOSED", "PAYER_ACCOUNT_RESTRICTED", "PAYMENT_DENIED",
})  # fmt: skip
REFUND_REFUSALS = frozenset({
    "CAPTURE_FULLY_REFUNDED", "REFUND_AMOUNT_EXCEEDED", "REFUND_CAPTURE_CURRENCY_MISMATCH",
    "REFUND_TIME_LIMIT_EXCEEDED", "PARTIAL_REFUND_NOT_ALLOWED", "REFUND_NOT_ALLOWED", "INSUFFICIENT_FUNDS",
    "REFUND_NOT_PERMITTED_DUE_TO_CHARGEBACK", "CAPTURE_DISPUTED_PARTIAL_REFUND_NOT_ALLOWED",
})  # fmt: skip


def outcome_of_reply(
    request: Request, status: int, headers: Mapping[str, str], reply: dict[str, Any] | None
) -> Outcome:
    """The outcome of a reply that was read to its end: by status, and only if the body bears it out."""
    if status == 429:
        return NotSent("rate_limited", retry_after_s(headers.get("Retry-After")))
    if status in (401, 403):
        return NotSent("auth")
    if status == 409:
        return Ambiguous("in_flight")
    if status >= 500:
        return Ambiguous(f"http_{status}")
    if reply is None:
        return Ambiguous("bad_reply")
    if status in (200, 201):
        return _made(request, reply)
    return _refused(request, reply) if status in (400, 404, 422) else Ambiguous("bad_reply")


def _made(request: Request, reply: dict[str, Any]) -> Outcome:
    moved = reply if isinstance(request, RefundRequest) else _capture(reply)
    if moved is None:
        waits = reply.get("status") == "PAYER_ACTION_REQUIRED"
        return Declined("payer_action_required") if waits else Ambiguous("bad_reply")
    amount, ref, status = moved.get("amount"), moved.get("id"), moved.get("status")
    said = minor_of(amount) if isinstance(amount, dict) else None
    if said != (request.amount_minor, request.currency.upper()) or not isinstance(ref, str) or not ref:
        return Ambiguous("bad_reply")
    if status == "COMPLETED":
        return Succeeded(ref)
    if status in ("DECLINED", "FAILED", "CANCELLED"):
        answered = moved.get("processor_response") or {}
        reason = str(answered.get("response_code") or status.lower())
        return Declined(reason, ref, soft=reason in SOFT)
    return Ambiguous("pending", ask_only=True) if status == "PENDING" else Ambiguous("bad_reply")


def _capture(order: dict[str, Any]) -> dict[str, Any] | None:
    try:
        capture = order["purchase_units"][0]["payments"]["captures"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return capture if isinstance(capture, dict) else None


def _refused(request: Request, reply: dict[str, Any]) -> Outcome:
    details = reply.get("details")
    first = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    issue = first.get("issue") or reply.get("name")
    if not isinstance(issue, str):
        return Ambiguous("bad_reply")
    if issue in ("DUPLICATE_REQUEST_ID", "PAYPAL_REQUEST_ID_MISMATCH"):
        return KeyMismatch(issue)
    if issue in ("DUPLICATE_INVOICE_ID", "ORDER_ALREADY_CAPTURED"):
        return Ambiguous(issue.lower(), ask_only=True)  # it is there already, under our reference
    declined = REFUND_REFUSALS if isinstance(request, RefundRequest) else DECLINES
    return Declined(issue, soft=issue in SOFT) if issue in declined else Invalid(issue)
