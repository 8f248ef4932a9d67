"""The JSON shapes of the simulated gateway, after Stripe's API reference (charges, refunds, errors)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

MAX_AMOUNT = 999_999_999_999
"""Highest amount in minor units."""

MAX_TEXT = 500
"""Most characters of a text parameter (Stripe's bound for a metadata value)."""

FAILURE_CODES = {
    "pm_card_declined": "card_declined",
    "pm_card_insufficient_funds": "insufficient_funds",
    "pm_card_lost": "lost_card",
    "pm_card_expired": "expired_card",
}
"""Test payment methods that fail; every other pm_* succeeds."""

REFUND_FAILURES = {"pm_card_refund_fail": "expired_or_canceled_card"}
"""Test payment methods whose charge succeeds and whose refunds fail, with the reason."""

_FAILURE_TEXTS = {
    "card_declined": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "lost_card": "Your card was reported lost.",
    "expired_card": "Your card has expired.",
}


METADATA = ("ref", "payment_id", "user_id", "fingerprint")
"""The names in `metadata` that are kept."""


class BadRequest(ValueError):
    """Raised when a request is answered with an error and nothing is done."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def body(self) -> bytes:
        """The error reply."""
        kind = "idempotency_error" if self.code.startswith("idempotency_") else "invalid_request_error"
        return error_body(self.code, str(self), kind)


@dataclass(slots=True)
class Charge:
    """One row of the ledger; amounts in minor units, `refunded` is the committed part of `amount`."""

    id: str
    idempotency_key: str
    amount: int
    currency: str
    status: str
    failure_code: str | None
    payment_method: str
    ref: str | None
    payment_id: str | None
    user_id: str | None
    fingerprint: str | None
    created_ms: int
    refunded: int = 0
    payment_intent: str | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund; `amount` in minor units of the charge's currency; a failed one gave nothing back."""

    id: str
    idempotency_key: str
    charge_id: str
    amount: int
    currency: str
    created_ms: int
    status: str = "succeeded"
    failure_reason: str | None = None
    ref: str | None = None
    payment_id: str | None = None
    user_id: str | None = None
    fingerprint: str | None = None
    payment_intent: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a POST with this key is answered, now or on a replay; `params_hash` tells its parameters."""

    params_hash: str
    status: int
    body: bytes


def parse_body(raw: bytes, content_type: str) -> dict[str, Any]:
    """Parameters from a JSON object or a form (`metadata[ref]=...`); raises BadRequest."""
    if content_type == "application/x-www-form-urlencoded":
        return _parse_form(raw)
    try:
        params = orjson.loads(raw)
    except ValueError:
        raise BadRequest("parameter_invalid", "The body is not JSON.") from None
    if not isinstance(params, dict):
        raise BadRequest("parameter_invalid", "The body is not a JSON object.")
    return params


def _parse_form(raw: bytes) -> dict[str, Any]:
    params: dict[str, Any] = {}
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise BadRequest("parameter_invalid", "The form cannot be read.") from None
    for name, value in pairs:
        if name.startswith("metadata[") and name.endswith("]"):
            params.setdefault("metadata", {})[name[len("metadata[") : -1]] = value
        elif name == "amount" and value.isascii() and value.isdigit() and len(value) < 19:
            params[name] = int(value)
        else:
            params[name] = value
    return params


def params_hash(endpoint: str, params: dict[str, Any]) -> str:
    """Equal for the same parameters at the same endpoint, in any order and encoding."""
    try:
        canonical = orjson.dumps(params, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise BadRequest("parameter_invalid", "The body cannot be read.") from None
    return hashlib.sha256(endpoint.encode() + b"\n" + canonical).hexdigest()


def new_charge(key: str, params: dict[str, Any], *, charge_id: str, now_ms: int) -> Charge:
    """The charge that these parameters ask for, with the outcome of its payment method."""
    metadata, currency = metadata_of(params), currency_of(params)
    method = text_of(params, "payment_method")
    if not method.startswith("pm_"):
        raise BadRequest("resource_missing", "No such payment_method.")
    failure_code = FAILURE_CODES.get(method)
    return Charge(
        id=charge_id,
        idempotency_key=key,
        amount=amount_of(params),
        currency=currency,
        status="failed" if failure_code else "succeeded",
        failure_code=failure_code,
        payment_method=method,
        ref=metadata["ref"],
        payment_id=metadata["payment_id"],
        user_id=metadata["user_id"],
        fingerprint=metadata["fingerprint"],
        created_ms=now_ms,
    )


def new_refund(
    key: str, params: dict[str, Any], charge: Charge, amount: int, *, refund_id: str, now_ms: int
) -> Refund:
    """The refund of so much of this charge, with the outcome of the charge's payment method."""
    reason = REFUND_FAILURES.get(charge.payment_method)
    return Refund(
        id=refund_id, idempotency_key=key, charge_id=charge.id, amount=amount, currency=charge.currency,
        created_ms=now_ms, status="failed" if reason else "succeeded", failure_reason=reason,
        payment_intent=charge.payment_intent, **metadata_of(params),
    )  # fmt: skip


def metadata_of(params: dict[str, Any]) -> dict[str, str | None]:
    """The metadata that are kept."""
    metadata = params.get("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("parameter_invalid", "metadata: an object is allowed.")
    return {name: _metadata(metadata, name) for name in METADATA}


def amount_of(params: dict[str, Any]) -> int:
    """The amount in minor units: an int, 1 to `MAX_AMOUNT`."""
    amount = params.get("amount")
    if type(amount) is not int or not 0 < amount <= MAX_AMOUNT:
        raise BadRequest("parameter_invalid_integer", f"amount: an integer of 1 to {MAX_AMOUNT} is allowed.")
    return amount


def currency_of(params: dict[str, Any]) -> str:
    """Three letters."""
    currency = text_of(params, "currency")
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        raise BadRequest("parameter_invalid", "currency: three letters are allowed.")
    return currency.upper()


def text_of(params: dict[str, Any], name: str) -> str:
    """A text parameter that has to be there."""
    value = params.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise BadRequest("parameter_missing", f"{name}: a text of 1 to {MAX_TEXT} characters is required.")
    return value


def _metadata(metadata: dict[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > MAX_TEXT):
        raise BadRequest("parameter_invalid", f"metadata[{name}]: a text is allowed.")
    return value


def charge_json(charge: Charge) -> dict[str, object]:
    """A charge as the API shows it; `created` in seconds as at Stripe, `created_ms` beside it."""
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_refunded": charge.refunded,
        "currency": charge.currency,
        "status": charge.status,
        "paid": charge.failure_code is None,
        "failure_code": charge.failure_code,
        "payment_intent": charge.payment_intent,
        "payment_method": charge.payment_method,
        "created": charge.created_ms // 1000,
        "created_ms": charge.created_ms,
        "metadata": {name: getattr(charge, name) for name in METADATA},
    }


def charge_reply(charge: Charge, hashed: str) -> Reply:
    """200 with the charge, or 402 with a card error that names the failed charge."""
    if charge.failure_code is None:
        return Reply(hashed, 200, orjson.dumps(charge_json(charge)))
    error = {
        "type": "card_error",
        "code": charge.failure_code,
        "decline_code": charge.failure_code,
        "charge": charge.id,
        "message": _FAILURE_TEXTS[charge.failure_code],
    }
    return Reply(hashed, 402, orjson.dumps({"error": error}))


def refund_reply(refund: Refund, hashed: str) -> Reply:
    """200 with the refund, also with a failed one, as at Stripe."""
    return Reply(hashed, 200, orjson.dumps(refund_json(refund)))


def refund_json(refund: Refund) -> dict[str, object]:
    """A refund as the API shows it."""
    return {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "currency": refund.currency,
        "charge": refund.charge_id,
        "payment_intent": refund.payment_intent,
        "status": refund.status,
        "failure_reason": refund.failure_reason,
        "created": refund.created_ms // 1000,
        "created_ms": refund.created_ms,
        "metadata": {name: getattr(refund, name) for name in METADATA},
    }


def list_body(rows: Sequence[Charge | Refund], *, has_more: bool) -> bytes:
    """A page of charges or refunds."""
    data = [charge_json(row) if isinstance(row, Charge) else refund_json(row) for row in rows]
    return orjson.dumps({"object": "list", "data": data, "has_more": has_more})


def error_body(code: str, message: str, kind: str) -> bytes:
    """An error reply of the given Stripe type (`api_error`, `invalid_request_error`, ...)."""
    return orjson.dumps({"error": {"type": kind, "code": code, "message": message}})
