"""What Stripe says where localstripe has other words (docs.stripe.com/api/errors, /error-codes)."""

from __future__ import annotations

from typing import Any, Final

Row = dict[str, Any]
Answer = tuple[int, Row]

CANCELABLE: Final = "requires_payment_method, requires_capture, requires_confirmation, requires_action"
NEEDS_CUSTOMER: Final = "authentication_required"
NEEDS_CUSTOMER_TEXT: Final = "Your card was declined. This transaction requires authentication."


def card_error(code: str, decline_code: str, text: str, charge: str | None, intent: Row) -> Answer:
    """402 with the intent inside the error."""
    return 402, {"error": {
        "type": "card_error", "code": code, "decline_code": decline_code, "message": text, "charge": charge,
        "payment_intent": intent,
    }}  # fmt: skip


def unexpected_state(intent: Row) -> Answer:
    """The refusal to cancel what has come to its end."""
    text = (
        f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}. Only a"
        f" PaymentIntent with one of the following statuses may be canceled: {CANCELABLE}."
    )
    return 400, {"error": {
        "type": "invalid_request_error", "code": "payment_intent_unexpected_state", "message": text,
        "payment_intent": intent,
    }}  # fmt: skip


def refusal(code: str | None, text: str, status: int = 400) -> Answer:
    """An error about the request."""
    return status, {"error": {"type": "invalid_request_error", "code": code, "message": text}}


def as_stripe_says(status: int, said: Row, *, made: bool) -> Answer:
    """An error of localstripe; one about something else that is not there is 404 only for a question."""
    if status == 404:
        return refusal("resource_missing", "No such object.", 400 if made else 404)
    return status, said


def refused_intent(raw: Row, charge: str) -> Row:
    """An off-session intent whose bank wants the customer: its charge failed, it waits for a method."""
    return {**raw, "status": "requires_payment_method", "next_action": None, "payment_method": None,
            "latest_charge": charge, "last_payment_error": {
        "type": "card_error", "code": NEEDS_CUSTOMER, "decline_code": NEEDS_CUSTOMER, "charge": charge,
        "message": NEEDS_CUSTOMER_TEXT, "payment_method": {"id": raw["payment_method"]},
    }}  # fmt: skip
