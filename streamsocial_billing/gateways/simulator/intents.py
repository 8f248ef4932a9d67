"""Intents of the simulated gateway: payments that wait, after Stripe's API reference (PaymentIntents).

An off-session intent whose bank wants its customer is refused (402 `authentication_required`) and lives on:
the customer confirms it, or fails to, or it is canceled. One that is processing ends when it is told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from streamsocial_billing.gateways.simulator.shapes import (
    METADATA,
    BadRequest,
    Charge,
    Reply,
    amount_of,
    currency_of,
    metadata_of,
    text_of,
)

NEEDS_CUSTOMER: Final = "authentication_required"
AUTHENTICATION_FAILED: Final = "payment_intent_authentication_failure"
REFUSED: Final = "requires_payment_method"
METHODS: Final[dict[str, tuple[str, str | None]]] = {
    "pm_card_authenticationRequired": (REFUSED, NEEDS_CUSTOMER), "pm_card_processing": ("processing", None),
}  # fmt: skip
"""Test payment methods that need an intent: its first status, the error of its first try."""
OPEN: Final = frozenset({REFUSED, "processing"})


@dataclass(frozen=True, slots=True)
class Intent:
    """One intent; `error` is the code of its last try, `charge_id` the charge that it made."""

    id: str
    idempotency_key: str
    amount: int
    currency: str
    payment_method: str
    created_ms: int
    status: str
    error: str | None
    charge_id: str | None = None
    ref: str | None = None
    payment_id: str | None = None
    user_id: str | None = None
    fingerprint: str | None = None


def new_intent(key: str, params: dict[str, Any], *, intent_id: str, now_ms: int) -> Intent:
    """The intent that these parameters ask for, confirmed at once, with what its payment method does then."""
    method = text_of(params, "payment_method")
    if method not in METHODS:
        raise BadRequest("resource_missing", f"An intent is for {', '.join(METHODS)}; others: /v1/charges.")
    status, error = METHODS[method]
    return Intent(
        id=intent_id, idempotency_key=key, amount=amount_of(params), currency=currency_of(params),
        payment_method=method, created_ms=now_ms, status=status, error=error, **metadata_of(params),
    )  # fmt: skip


def paid(intent: Intent, *, charge_id: str, now_ms: int) -> tuple[Intent, Charge]:
    """It succeeds, with its charge; raises BadRequest if it is at its end."""
    _check_open(intent, "confirm")
    charge = Charge(
        id=charge_id, idempotency_key=intent.id, amount=intent.amount, currency=intent.currency,
        status="succeeded", failure_code=None, payment_method=intent.payment_method, created_ms=now_ms,
        payment_intent=intent.id, **{name: getattr(intent, name) for name in METADATA},
    )  # fmt: skip
    return replace(intent, status="succeeded", error=None, charge_id=charge_id), charge


def failed(intent: Intent, reason: str | None) -> tuple[Intent, None]:
    """This try fails: the customer may try again; raises BadRequest if it is at its end."""
    _check_open(intent, "confirm")
    usual = "card_declined" if intent.status == "processing" else AUTHENTICATION_FAILED
    return replace(intent, status=REFUSED, error=reason or usual), None


def canceled(intent: Intent) -> tuple[Intent, None]:
    """Nobody can confirm it any more; raises BadRequest if it is at its end, or being processed."""
    if intent.status != REFUSED:
        raise UnexpectedState(intent, "cancel")
    return replace(intent, status="canceled"), None


def _check_open(intent: Intent, action: str) -> None:
    if intent.status not in OPEN:
        raise UnexpectedState(intent, action)


class UnexpectedState(BadRequest):
    """Raised when an intent is asked for what its status does not allow; the intent is inside the error."""

    def __init__(self, intent: Intent, action: str) -> None:
        text = f"You cannot {action} this PaymentIntent because it has a status of {intent.status}."
        super().__init__("payment_intent_unexpected_state", text)
        self._intent = intent

    @property
    def body(self) -> bytes:
        """The error reply."""
        return orjson.dumps({"error": {
            "type": "invalid_request_error", "code": self.code, "message": str(self),
            "payment_intent": intent_json(self._intent),
        }})  # fmt: skip


def intent_json(intent: Intent) -> dict[str, object]:
    """An intent as the API shows it; without a client secret, as its page needs none."""
    error = {"type": "card_error", "code": intent.error} | (
        {"decline_code": NEEDS_CUSTOMER} if intent.error == NEEDS_CUSTOMER else {}
    )
    return {
        "id": intent.id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_received": intent.amount if intent.charge_id else 0,
        "currency": intent.currency,
        "status": intent.status,
        "latest_charge": intent.charge_id,
        "last_payment_error": None if intent.error is None else error,
        "payment_method": None if intent.status == REFUSED else intent.payment_method,
        "created": intent.created_ms // 1000,
        "created_ms": intent.created_ms,
        "metadata": {name: getattr(intent, name) for name in METADATA},
    }


def intent_reply(intent: Intent, hashed: str) -> Reply:
    """200 with the intent, or 402 with the intent inside the error of its first try."""
    if intent.error is None:
        return Reply(hashed, 200, orjson.dumps(intent_json(intent)))
    return Reply(hashed, 402, orjson.dumps({"error": {
        "type": "card_error", "code": intent.error, "decline_code": intent.error,
        "message": "This transaction requires authentication.", "payment_intent": intent_json(intent),
    }}))  # fmt: skip


def intents_body(rows: Sequence[Intent]) -> bytes:
    """All of them, newest first."""
    data = [intent_json(row) for row in rows]
    return orjson.dumps({"object": "list", "data": data, "has_more": False})
