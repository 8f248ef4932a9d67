"""What a payment event leads to, decided without doing it.

Pure: no await, no I/O, no clock; nothing that comes in is changed. The rules are payments.md's table
"Decision before the gateway". Final statuses never change again; open ones wait for their outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamsocial_billing.events import (
    FINGERPRINT_VERSION,
    KEY_VERSION,
    PaymentEvent,
    fingerprint,
    gateway_key,
)
from tables.charges import ChargeState, Money
from tables.payments import PaymentEntry, Source

FINAL: Final = frozenset({"succeeded", "declined", "failed", "rejected"})
OPEN: Final = frozenset({"unknown", "parked"})
DEDUP_RETENTION_MS: Final = 35 * 86_400_000
"""How long a full entry is kept after it became final; an older event without entry is expired."""
RETRY_EVERY_MS: Final = 5_000
"""Pause between the tries of an unknown payment, until the growing schedule of payments.md is built."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Call the gateway with this key, then store after_outcome()."""

    idempotency_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Emit the stored final outcome again with `replayed: true`; no call, the entry stays."""

    status: str
    reason: str | None
    gateway_ref: str | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Open:
    """Emit the open outcome with `replayed: true`, store `entry`; no call. Never settles anything."""

    status: str
    reason: str | None
    gateway_ref: str | None
    attempts: int
    entry: PaymentEntry


@dataclass(frozen=True, slots=True)
class Reject:
    """Emit `rejected` with `reason`; no call. `detail` is for the log; `stored`: the entry records it."""

    reason: str
    stored: bool
    detail: str | None = None


Decision = Charge | Replay | Open | Reject


def decide(
    event: PaymentEvent,
    entry: PaymentEntry | None,
    *,
    now_ms: int,
    appended_ms: int,
    dedup_retention_ms: int,
    configured_gateways: frozenset[str],
) -> Decision:
    """Decide about an event by the entry of its payment; raises ValueError for an entry of a newer release.

    `appended_ms` is the broker's append time of this record. A known payment is answered from its entry
    before anything else is asked, so that a change of the configuration never changes an outcome.
    """
    if entry is not None:
        return _known(event, entry, now_ms)
    if now_ms - min(event.requested_at, appended_ms) > dedup_retention_ms:
        return Reject("expired", stored=False)  # a dropped entry may have charged it
    if event.action != "charge":
        return Reject("unsupported_action", stored=False)
    if event.gateway not in configured_gateways:
        return Reject("gateway_not_configured", stored=False)
    return Charge(gateway_key(event), fingerprint(event))


def _known(event: PaymentEvent, entry: PaymentEntry, now_ms: int) -> Decision:
    got = fingerprint(event, entry["fingerprint_version"])
    if got != entry["fingerprint"]:
        detail = f"stored {entry['fingerprint']}, got {got}"
        return Reject("idempotency_mismatch", stored=False, detail=detail)
    outcome = entry["status"], entry["reason"], entry["gateway_ref"], entry["attempts"]
    if entry["status"] in FINAL:
        return Replay(*outcome)
    return Open(*outcome, entry=_sooner(entry, now_ms))


def _sooner(entry: PaymentEntry, now_ms: int) -> PaymentEntry:
    """The entry with its next try due now, unless it is due already or waits for a person."""
    due = entry["next_try_at"]
    moved = entry.copy()
    if due is not None:
        moved["next_try_at"] = min(due, now_ms)
    return moved


def after_outcome(
    event: PaymentEvent,
    *,
    status: str,
    reason: str | None,
    gateway_account: str,
    gateway_ref: str | None,
    attempts: int,
    ever_ambiguous: bool,
    last_error: str | None,
    source: Source,
    appended_ms: int,
    now_ms: int,
) -> PaymentEntry:
    """The entry of a payment whose first event was just handled.

    `ever_ambiguous` must also be True if an earlier delivery of this event may have called the gateway before
    a crash: of such a call nothing is stored, so nothing proves that it was not sent.
    """
    return {
        "fingerprint": fingerprint(event),
        "fingerprint_version": FINGERPRINT_VERSION,
        "key_version": KEY_VERSION,
        "action": event.action,
        "product": event.product,
        "status": status,
        "reason": reason,
        "gateway": event.gateway,
        "gateway_account": gateway_account,
        "gateway_ref": gateway_ref,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
        "refunded_minor": 0,
        "payment_method": event.payment_method,
        "business_ref": event.business_ref,
        "refund_of": event.refund_of,
        "attempts": attempts,
        "ever_ambiguous": ever_ambiguous,
        "requested_at": event.requested_at,
        "first_seen_at": appended_ms,
        "processed_at": now_ms,
        "next_try_at": next_try_at(status, now_ms),
        "source": source,
        "last_error": last_error,
    }


def after_retry(
    entry: PaymentEntry,
    *,
    status: str,
    reason: str | None,
    gateway_ref: str | None,
    attempts: int,
    ambiguous: bool,
    last_error: str | None,
    now_ms: int,
) -> PaymentEntry:
    """The entry after `attempts` more calls for an open payment; raises ValueError for a final one."""
    if entry["status"] not in OPEN:
        raise ValueError(f"a payment that is {entry['status']} never changes again")
    changed = entry.copy()
    changed["status"] = status
    changed["reason"] = reason
    changed["gateway_ref"] = gateway_ref if gateway_ref is not None else entry["gateway_ref"]
    changed["attempts"] = entry["attempts"] + attempts
    changed["ever_ambiguous"] = entry["ever_ambiguous"] or ambiguous
    changed["last_error"] = last_error
    changed["processed_at"] = now_ms
    changed["next_try_at"] = next_try_at(status, now_ms)
    return changed


def next_try_at(status: str, now_ms: int) -> int | None:
    """When a payment with this status is tried again, milliseconds since the epoch; None: not by itself."""
    return now_ms + RETRY_EVERY_MS if status == "unknown" else None


def settles(entry: PaymentEntry | None) -> bool:
    """True if a nudge may try this payment: unknown; a parked one waits for a person."""
    return entry is not None and entry["status"] == "unknown"


def is_due(entry: PaymentEntry | None, now_ms: int) -> bool:
    """True if a nudge has to act now; nudges may be lost or doubled, so each one asks."""
    if entry is None or not settles(entry):
        return False
    return entry["next_try_at"] is None or entry["next_try_at"] <= now_ms


def gives_up(entry: PaymentEntry, now_ms: int, give_up_after_ms: int) -> bool:
    """True if the payment becomes `failed` / `gave_up`: unknown for longer than that, never sent.

    An ambiguous one never fails by a timer (payments.md, "Outcomes"). Ask after a try, not instead.
    """
    age_ms = now_ms - entry["first_seen_at"]
    return settles(entry) and not entry["ever_ambiguous"] and age_ms > give_up_after_ms


def charge_state_after(
    state: ChargeState | None,
    user_id: str,
    status: str,
    amount_minor: int,
    currency: str,
    replayed: bool,
    payment_id: str,
    at_ms: int,
) -> ChargeState:
    """The user's state after one more charge result; the same fold that an audit makes over `charge-results`.

    Only a succeeded charge that is no replay moves money.
    """
    counted = "replayed" if replayed else status
    counts = dict(state["counts"]) if state else {}
    counts[counted] = counts.get(counted, 0) + 1
    money = dict(state["money"]) if state else {}
    if status == "succeeded" and not replayed:
        had = money.get(currency) or Money(charged_minor=0, refunded_minor=0)
        money[currency] = Money(
            charged_minor=had["charged_minor"] + amount_minor, refunded_minor=had["refunded_minor"]
        )
    last = state["last_payment"] if state else None
    if not replayed:
        last = {"payment_id": payment_id, "status": status, "at": at_ms}
    return {"user_id": user_id, "money": money, "counts": counts, "last_payment": last}
