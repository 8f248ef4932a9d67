"""Judges PayPal's replies to a call that moves money.

`DECLINES` and `REFUND_REFUSALS` are the issues that are a decline, `SOFT` those that another payment, days
later, may not meet (developer.paypal.com/api/rest/reference/orders/v2/errors).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamsocial_billing.domain.foreign_text import code_in, reference_in
from streamsocial_billing.domain.gateway_calls import (
    PENDING,
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
    Waiting,
)
from streamsocial_billing.gateways.http import retry_after_s
from streamsocial_billing.gateways.paypal.amounts import minor_of
from streamsocial_billing.gateways.paypal.own_fields import words_on

Request = ChargeRequest | RefundRequest

SOFT = frozenset({
    "0500", "5100", "5120", "5650", "INSTRUMENT_DECLINED", "PAYMENT_SOURCE_DECLINED_BY_PROCESSOR",
    "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING",
})  # fmt: skip
"""Do not honour, generic decline, insufficient funds, needs authentication, declined instrument."""
DECLINES = frozenset({
    "INSTRUMENT_DECLINED", "PAYER_CANNOT_PAY", "TRANSACTION_REFUSED", "CARD_EXPIRED", "CARD_CLOSED",
    "PAYER_ACCOUNT_LOCKED_OR_CLOSED", "PAYER_ACCOUNT_RESTRICTED", "PAYMENT_DENIED", "TOKEN_EXPIRED",
    "TOKEN_ID_NOT_FOUND", "PAYER_ACTION_REQUIRED", "PAYMENT_SOURCE_DECLINED_BY_PROCESSOR",
    "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING",
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
    amount, ref, status = moved.get("amount"), reference_in(moved.get("id")), moved.get("status")
    said = minor_of(amount) if isinstance(amount, dict) else None
    if said != (request.amount_minor, request.currency.upper()) or ref is None:
        return Ambiguous("bad_reply")
    if status == "COMPLETED":
        return Succeeded(ref)
    if status in ("DECLINED", "FAILED", "CANCELLED"):
        reason = _why(moved)
        return Declined(reason, ref, soft=reason in SOFT)
    if status != "PENDING":
        return Ambiguous("bad_reply")
    if isinstance(request, RefundRequest):
        return Ambiguous("pending", ask_only=True)
    return Waiting(PENDING, ref)  # the capture itself is asked for from now on


CAPTURES = {
    "COMPLETED": "succeeded", "PARTIALLY_REFUNDED": "succeeded", "REFUNDED": "succeeded",
    "PENDING": "pending", "DECLINED": "declined", "FAILED": "declined",
}  # fmt: skip
"""What a capture's status says of the charge (developer.paypal.com/docs/api/payments/v2, "captures_get")."""


def answer_of_capture(query: Query, status: int, reply: dict[str, Any] | None) -> Answer:
    """A capture that was asked for by its id: nobody but PayPal ends it, and its decline is for good."""
    if status == 404 and reply is not None:
        return Absent()
    moved = reply or {}
    amount, said = moved.get("amount"), CAPTURES.get(str(moved.get("status")))
    minor = minor_of(amount) if isinstance(amount, dict) else None
    if status != 200 or said is None or minor is None or moved.get("id") != query.intent:
        return Ambiguous(f"http_{status}" if status != 200 else "bad_reply")
    words = words_on(moved)
    ours = words is not None or moved.get("invoice_id") == query.idempotency_key
    reason = None if said == "succeeded" else PENDING if said == "pending" else _why(moved)
    return Found(
        gateway_ref=str(query.intent), status=said, reason=reason, amount_minor=minor[0], currency=minor[1],
        user_id=words.user_id if words else query.user_id if ours else None,
        payment_id=words.payment_id if words else None, soft=said == "declined" and reason in SOFT,
        intent=query.intent, canceled=said == "declined",
    )  # fmt: skip


def _why(moved: dict[str, Any]) -> str:
    """The processor's code of a capture that failed, else its status."""
    answered = moved.get("processor_response")
    code = answered.get("response_code") if isinstance(answered, dict) else None
    return code_in(code) or code_in(str(moved["status"]).lower()) or "declined"


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
    if issue == "PREVIOUS_REQUEST_IN_PROGRESS":
        return Ambiguous("in_flight")
    if issue in ("DUPLICATE_INVOICE_ID", "ORDER_ALREADY_CAPTURED"):
        return Ambiguous(issue.lower(), ask_only=True)  # it is there already, under our reference
    declined = REFUND_REFUSALS if isinstance(request, RefundRequest) else DECLINES
    return Declined(issue, soft=issue in SOFT) if issue in declined else Invalid(code_in(issue) or "refused")
