"""Reads replies in Stripe's JSON shapes: the simulated gateway's and Stripe's own.

`STATUSES` is the one table from HTTP status to outcome, `declines.SOFT` the one from decline code to soft or
hard. What a PaymentIntent says: intents.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamsocial_billing.domain.foreign_text import code_in, reference_in
from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.domain.references import our_reference
from streamsocial_billing.gateways.base import MAX_LISTED_MINOR, check_writable, unreadable
from streamsocial_billing.gateways.http import retry_after_s
from streamsocial_billing.gateways.moved import (
    Moved,
    stripe_dispute,
    stripe_dispute_by_status,
    stripe_refund,
)
from streamsocial_billing.gateways.stripe.declines import SOFT, is_soft

Request = ChargeRequest | RefundRequest

REFUND_REFUSALS = frozenset({
    "charge_already_refunded", "charge_disputed", "charge_not_refundable", "balance_insufficient",
    "insufficient_funds", "refund_disputed_payment",
})  # fmt: skip
"""400s that say something of the charge, not of our request: the refund is declined, nothing moved."""

LAST_MS = 253_402_300_800_000
"""The end of the year 9999: no calendar here goes on."""
REPLAY_MARK = "idempotent-replayed"


def outcome_of_reply(
    request: Request, status: int, headers: Mapping[str, str], reply: dict[str, Any] | None
) -> Outcome:
    """The outcome of a reply that was read to its end: by status, and only if the body bears it out.

    `reply` is the JSON object of the body, None where it is none; header names in any case.
    """
    known = {name.lower(): value for name, value in headers.items()}
    if status == 429:
        return NotSent("rate_limited", retry_after_s(known.get("retry-after")))
    if status >= 500:
        # stored under the key: a repeat brings the same error again, whatever happened to the money
        return Ambiguous(f"http_{status}", ask_only=known.get(REPLAY_MARK) == "true")
    judge = STATUSES.get(status, Ambiguous("bad_reply"))
    if isinstance(judge, NotSent | Ambiguous):
        return judge
    return Ambiguous("bad_reply") if reply is None else judge(request, reply)


def _succeeded(request: Request, reply: dict[str, Any]) -> Outcome:
    """A 200 counts only if the body says so of our amount in our currency."""
    ref, currency, amount = reference_in(reply.get("id")), reply.get("currency"), reply.get("amount")
    fits = (
        ref is not None and isinstance(currency, str)
        and currency.upper() == request.currency.upper()
        and type(amount) is int and amount == request.amount_minor
    )  # fmt: skip
    status = reply.get("status")
    if not fits:
        return Ambiguous("bad_reply")
    if status == "succeeded":
        return Succeeded(str(ref))
    if isinstance(request, RefundRequest) and status in ("failed", "canceled"):
        return Declined(code_in(reply.get("failure_reason")) or f"refund_{status}", str(ref))
    if status in ("pending", "requires_action"):
        return Ambiguous("pending", ask_only=True)  # a repeat brings the stored "pending" again
    return Ambiguous("bad_reply")


def _declined(_request: Request, reply: dict[str, Any]) -> Outcome:
    error = error_of(reply)
    said = error.get("decline_code") or error.get("code")
    if error.get("type") != "card_error" or not isinstance(said, str):
        return Ambiguous("bad_reply")
    reason = code_in(said) or "declined"
    return Declined(reason, reference_in(error.get("charge")), soft=is_soft(reason, error))


def _refused(request: Request, reply: dict[str, Any]) -> Outcome:
    """A 400 or 404 without the gateway's error shape came from something else on the way."""
    error = error_of(reply)
    code, kind = error.get("code"), error.get("type")
    if "idempotency_error" in (code, kind):
        return KeyMismatch("idempotency_error")
    if isinstance(request, RefundRequest) and code in REFUND_REFUSALS:
        return Declined(code)
    reason = code or kind
    return Invalid(code_in(reason) or "refused") if isinstance(reason, str) else Ambiguous("bad_reply")


def error_of(reply: dict[str, Any]) -> dict[str, Any]:
    """The error object of a reply, {} where it has none."""
    error = reply.get("error")
    return error if isinstance(error, dict) else {}


STATUSES: dict[int, NotSent | Ambiguous | Callable[[Request, dict[str, Any]], Outcome]] = {
    200: _succeeded,
    400: _refused,
    401: NotSent("auth"),
    402: _declined,
    403: NotSent("auth"),
    404: _refused,
    409: Ambiguous("in_flight"),
}
"""Beside these: 429 NotSent with the gateway's wish, 5xx Ambiguous, everything else Ambiguous."""


def answer_of_list(query: Query, rows: list[dict[str, Any]]) -> Answer:
    """What the rows under our reference say; one that moved money counts before one that did not.

    A row that contradicts the query is given too (`Found.agrees` is the caller's): it needs a person.
    """
    found = [found_in(query, row) for row in rows]
    for status in ("succeeded", "pending", "declined"):
        for one in found:
            if one is not None and one.status == status:
                return one
    return Ambiguous("bad_reply") if rows else Absent()


def found_in(query: Query, row: dict[str, Any]) -> Found | None:
    """One row as an answer; None where it is not readable."""
    ref = reference_in(row.get("id"))
    status, amount, currency = (row.get(name) for name in ("status", "amount", "currency"))
    said = {"succeeded": "succeeded", "failed": "declined", "canceled": "declined", "pending": "pending",
            "requires_action": "pending"}.get(str(status))  # fmt: skip
    if said is None or ref is None or type(amount) is not int or not isinstance(currency, str):
        return None
    metadata = metadata_of(row)
    reason = decline_reason(row) if said == "declined" else None
    return Found(
        gateway_ref=ref, status=said, reason=reason, amount_minor=amount, currency=currency.upper(),
        user_id=metadata.get("user_id"), payment_id=metadata.get("payment_id"),
        soft=reason in SOFT and query.action == "charge",
    )  # fmt: skip


def decline_reason(row: dict[str, Any]) -> str:
    """The code of a failed charge or refund."""
    outcome = row.get("outcome")
    reason = outcome.get("reason") if isinstance(outcome, dict) else None
    for code in (reason, row.get("failure_code"), row.get("failure_reason")):
        found = code_in(code)
        if found is not None:
            return found
    return "declined"


def metadata_for(request: ChargeRequest | RefundRequest) -> dict[str, str]:
    """What each of our calls carries as metadata; `metadata_of` reads it back."""
    return {
        "ref": request.idempotency_key,
        "payment_id": request.payment_id,
        "user_id": request.user_id,
        "fingerprint": request.fingerprint,
    }


def metadata_of(row: dict[str, Any]) -> dict[str, str]:
    """The texts of an object's metadata."""
    metadata = row.get("metadata")
    if not metadata or not isinstance(metadata, dict):
        return {}
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


def created_ms(row: dict[str, Any]) -> int:
    """When the object was made: Stripe tells seconds, the simulator milliseconds too."""
    exact = row.get("created_ms")
    return exact if type(exact) is int else int(row["created"]) * 1000


def movement_of(kind: str, row: dict[str, Any]) -> Movement:
    """One row of a list; raises KeyError, TypeError or ValueError where one of ours is not readable.

    A row without our reference never fails: it comes as `unreadable` where it makes no sense.
    """
    metadata = metadata_of(row)
    ref = our_reference(metadata.get("ref"))
    try:
        return _movement(kind, row, ref, metadata if ref is not None else {})
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if ref is not None:
            raise ValueError(f"{row.get('id')}: {error}") from error
    return unreadable(row.get("id"), kind, row.get("currency"), created_or_0(row), _charge_ref(kind, row))


def _movement(kind: str, row: dict[str, Any], ref: str | None, words: dict[str, str]) -> Movement:
    status, amount, returned = _moved(kind, row)
    if not 0 <= amount <= MAX_LISTED_MINOR:
        raise ValueError("amount")
    name, currency, charge, own = row["id"], row["currency"], _charge_ref(kind, row), None
    intent = id_of(row.get("payment_intent"))
    if intent is not None and kind == "charge":
        name, own = intent, name
    if reference_in(name) is None or not isinstance(currency, str) or not _names_are_ids(row):
        raise TypeError("id, currency, charge")
    payment_id, user_id = words.get("payment_id"), words.get("user_id")
    check_writable(name, currency, charge, payment_id, user_id)
    return Movement(
        gateway_ref=name, kind=kind, status=status, amount_minor=amount, currency=currency.upper()[:20],
        created_ms=created_ms(row), ref=ref, payment_id=payment_id, user_id=user_id, charge_ref=charge,
        fee_minor=_fee(row), returned_minor=returned, intent_charge=own,
    )  # fmt: skip


def _names_are_ids(row: dict[str, Any]) -> bool:
    """False where it names a charge or an intent by what is no id."""
    return all(id_of(row[name]) is not None for name in ("charge", "payment_intent") if row.get(name))


_ENDS = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}


def _moved(kind: str, row: dict[str, Any]) -> tuple[str, int, int]:
    """Status as a list has it, minor units that moved, minor units that came back."""
    amount = row["amount"]
    if type(amount) is not int:
        raise TypeError("amount")
    if kind == "charge":
        captured = row.get("amount_captured")
        part = captured if type(captured) is int and 0 < captured < amount else amount
        return "pending" if row.get("captured") is False else _ENDS.get(row["status"], "pending"), part, 0
    if kind == "refund":
        moved = stripe_refund(row) or Moved("pending", 0, 0)
    else:
        moved = stripe_dispute(row) or stripe_dispute_by_status(row)
    status = "failed" if moved.status == "declined" else moved.status
    if kind == "refund":
        return status, amount, 0
    if status == "pending" and _is_inquiry(row):
        return status, amount, amount  # none of it is gone, whatever was booked of it
    return status, moved.withdrawn_minor or amount, moved.returned_minor


def _is_inquiry(dispute: dict[str, Any]) -> bool:
    """An inquiry that says itself that it moved nothing."""
    return str(dispute.get("status")).startswith("warning_") and dispute.get("balance_transactions") == []


def _charge_ref(kind: str, row: dict[str, Any]) -> str | None:
    """What a refund or a dispute is of: the intent, where its charge was made by one."""
    if kind == "charge":
        return None
    return id_of(row.get("payment_intent")) or id_of(row.get("charge"))


def id_of(of: object) -> str | None:
    """An id, which may stand for its object or in it."""
    name = of.get("id") if isinstance(of, dict) else of
    return reference_in(name)


def _fee(row: dict[str, Any]) -> int | None:
    """What Stripe took, where the balance has the charge's own currency."""
    of = row.get("balance_transaction")
    if not isinstance(of, dict) or type(of.get("fee")) is not int:
        return None
    same = of.get("currency", row["currency"]) == row["currency"]
    return of["fee"] if same and abs(of["fee"]) <= MAX_LISTED_MINOR else None


def created_or_0(row: dict[str, Any]) -> int:
    """The same of a row that may not say it."""
    try:
        at = created_ms(row)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0
    return at if 0 <= at < LAST_MS else 0
