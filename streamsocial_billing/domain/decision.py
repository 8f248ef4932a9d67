"""What a payment event leads to, decided without doing it.

Pure: no await, no I/O, no clock; nothing that comes in is changed. The rules are payments.md's table
"Decision before the gateway". Final statuses never change again; open ones wait for their outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Traits
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.newer_fields import keeping
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_identity import (
    FINGERPRINT_VERSION,
    KEY_VERSION,
    fingerprint,
    gateway_key,
)
from streamsocial_billing.domain.statuses import FINAL, OPEN
from tables.charges import ChargeState, Money, RefundsApart
from tables.payments import (
    Entry,
    ObservedEntry,
    PaymentEntry,
    SettledBy,
    SmallEntry,
    is_full,
)

ACTIONS: Final = frozenset({"charge", "refund"})
DAY_MS: Final = 86_400_000
DEDUP_RETENTION_MS: Final = 35 * DAY_MS
"""How long a full entry is kept after it became final; an older event without entry is expired."""
SCHEDULE_S: Final = (5, 30, 120, 600, 3_600, 21_600, *[86_400] * 5)
"""Pauses before the tries of an unknown payment (payments.md, "Outcomes"); after the last it is parked."""
LONGEST_WISH_S: Final = 86_400
"""A gateway may ask for patience, but not for more than a day of it."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Call the gateway with this key, then store first_entry()."""

    idempotency_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Refund:
    """Reserve, then call the gateway with this key, then store first_entry()."""

    idempotency_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """Store the event with what the gateway told of it before; emit that, `replayed: false`; no call."""

    found: Verdict
    gateway_account: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Emit the stored final outcome again with `replayed: true`; no call, the entry stays."""

    status: str
    reason: str | None
    gateway_ref: str | None
    attempts: int
    conflicts_with: str | None = None


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
    conflicts_with: str | None = None


Decision = Charge | Refund | Adopt | Replay | Open | Reject


def decide(
    event: PaymentEvent,
    entry: Entry | None,
    *,
    now_ms: int,
    appended_ms: int,
    dedup_retention_ms: int,
    configured_gateways: frozenset[str],
    traits: Traits | None = None,
    held_by: str | None = None,
    actions: frozenset[str] = ACTIONS,
) -> Decision:
    """Decide about an event by the entry of its payment; raises ValueError for an entry of a newer release.

    `appended_ms` is the broker's append time of this record, `traits` are those of the event's gateway,
    `held_by` the payment_id of another charge that holds the event's business_ref now (see `holds`). A known
    payment is answered from its entry before anything else is asked, so that a change of the configuration
    never changes an outcome.
    """
    if entry is not None:
        return _adopted(event, entry) if "seen" in entry else _known(event, entry, now_ms)
    if now_ms - min(event.requested_at, appended_ms) > dedup_retention_ms:
        return Reject("expired", stored=False)  # a dropped entry may have charged it
    if event.action not in actions:
        return Reject("unsupported_action", stored=False)
    if event.gateway not in configured_gateways:
        return Reject("gateway_not_configured", stored=False)
    if event.action == "refund":
        return Refund(gateway_key(event), fingerprint(event))
    if traits is not None and (reason := beyond_limits(event, traits)) is not None:
        return Reject(reason, stored=True)
    if held_by is not None:
        return Reject("duplicate_business_ref", stored=True, conflicts_with=held_by)
    return Charge(gateway_key(event), fingerprint(event))


def _known(event: PaymentEvent, entry: PaymentEntry | SmallEntry, now_ms: int) -> Decision:
    got = fingerprint(event, entry["fingerprint_version"])
    if got != entry["fingerprint"]:
        detail = f"stored {entry['fingerprint']}, got {got}"
        return Reject("idempotency_mismatch", stored=False, detail=detail)
    outcome = entry["status"], entry["reason"], entry["gateway_ref"], entry["attempts"]
    if is_full(entry) and entry["status"] in OPEN:
        return Open(*outcome, entry=_sooner(entry, now_ms))
    return Replay(*outcome, conflicts_with=entry["conflicts_with"])


def _sooner(entry: PaymentEntry, now_ms: int) -> PaymentEntry:
    """The entry with its next try due now, unless it is due already or waits for a person or by order."""
    due = entry["next_try_at"]
    moved = entry.copy()
    if due is not None:
        moved["next_try_at"] = min(due, max(now_ms, entry["not_before"] or 0))
    return moved


def _adopted(event: PaymentEvent, entry: ObservedEntry) -> Decision:
    """What the gateway told of a payment counts for its event only if they speak of the same money."""
    seen = entry["action"], entry["gateway"], entry["amount_minor"], entry["currency"]
    meant = event.action, event.gateway, event.amount_minor, event.currency
    if seen != meant:
        detail = f"the gateway reported {seen} under this id, the event means {meant}: {fingerprint(event)}"
        return Reject("idempotency_mismatch", stored=False, detail=detail)
    status, reason = entry["seen"], entry["reason"]
    if status not in FINAL:
        status, reason = "unknown", "pending_at_gateway"
    found = Verdict(status, reason, entry["gateway_ref"], soft=entry["soft"], ambiguous=status == "unknown")
    return Adopt(found, entry["gateway_account"])


def beyond_limits(event: PaymentEvent, traits: Traits) -> str | None:
    """The reason to refuse the amount at this gateway, None if it is within the limits."""
    if event.amount_minor < traits.min_minor.get(event.currency, 1):
        return "amount_below_minimum"
    most = traits.max_minor.get(event.currency)
    return "amount_above_maximum" if most is not None and event.amount_minor > most else None


def holds(entry: Entry | None) -> bool:
    """True if a charge holds its business_ref: succeeded (partly refunded too), unknown or parked."""
    if entry is None:
        return False
    if entry["status"] == "succeeded":
        return "seen" not in entry and entry["refunded_minor"] < entry["amount_minor"]
    return entry["status"] in OPEN


def past_window(window_from: int, now_ms: int, traits: Traits) -> bool:
    """True if the gateway may have forgotten our key since: only asking by reference is safe."""
    return now_ms - window_from > traits.key_safe_window_s * 1000


def proven_absent(entry: PaymentEntry, now_ms: int, traits: Traits) -> bool:
    """True if the gateway, which says now that it has nothing, said so before, long enough ago."""
    since = entry["absent_at"]
    return since is not None and now_ms - since >= traits.consistency_delay_s * 1000


def first_entry(
    received: Received, called: Called, now_ms: int, known_fingerprint: str | None = None
) -> PaymentEntry:
    """The entry of a payment whose first event was just handled.

    What was found must be ambiguous also where an earlier delivery of this event may have called the gateway
    before a crash: of such a call nothing is stored, so nothing proves that it was not sent.
    """
    event, source, appended_ms = received
    found, account, calls, _, _ = called
    due_at = now_ms + SCHEDULE_S[0] * 1000 if found.status == "unknown" else None
    not_before = _wish(found.retry_after_s, now_ms) if due_at is not None else None
    return {
        "fingerprint": known_fingerprint or fingerprint(event),
        "fingerprint_version": FINGERPRINT_VERSION,
        "key_version": KEY_VERSION,
        "action": event.action,
        "product": event.product,
        "status": found.status,
        "reason": found.reason,
        "gateway": event.gateway,
        "gateway_account": account,
        "gateway_ref": found.gateway_ref,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
        "refunded_minor": 0,
        "reserved_minor": 0,
        "payment_method": event.payment_method,
        "business_ref": event.business_ref,
        "refund_of": event.refund_of,
        "charge_ref": None,
        "conflicts_with": found.conflicts_with,
        "origin": "event",
        "soft": found.soft,
        "attempts": calls,
        "ever_ambiguous": found.ambiguous,
        "ask_only": found.ask_only,
        "requested_at": event.requested_at,
        "first_seen_at": appended_ms,
        "window_from": appended_ms,
        "absent_at": None,
        "processed_at": now_ms,
        "step": 0,
        "due_at": due_at,
        "not_before": not_before,
        "next_try_at": due_at if due_at is None else max(due_at, not_before or 0),
        "held_since": None,
        "settled_by": None,
        "source": source,
        "last_error": found.error,
    }


def after_retry(
    entry: PaymentEntry, found: Verdict, *, calls: int, now_ms: int, by: SettledBy | None = None
) -> PaymentEntry:
    """The entry of an open payment after `calls` more calls, or after a person settled it (`by`).

    Raises ValueError for a final one. A payment that is unknown after its last scheduled try is parked.
    """
    if entry["status"] not in OPEN:
        raise ValueError(f"a payment that is {entry['status']} never changes again")
    changed = entry.copy()
    changed["status"] = found.status
    changed["reason"] = found.reason
    changed["gateway_ref"] = found.gateway_ref if found.gateway_ref is not None else entry["gateway_ref"]
    changed["attempts"] = entry["attempts"] + calls
    changed["ever_ambiguous"] = entry["ever_ambiguous"] or found.ambiguous
    changed["ask_only"] = entry["ask_only"] or found.ask_only
    changed["soft"] = found.soft
    if found.absent:
        changed["absent_at"] = entry["absent_at"] or now_ms
    elif calls:  # from here on the gateway may have it
        changed["absent_at"] = None
    changed["window_from"] = found.window_from or entry["window_from"]
    changed["settled_by"] = by if by is not None else entry["settled_by"]
    changed["last_error"] = found.error
    changed["processed_at"] = now_ms
    _plan_next_try(changed, found, now_ms)
    return changed


def _plan_next_try(changed: PaymentEntry, found: Verdict, now_ms: int) -> None:
    """Set when an unknown payment is tried again; park it once its schedule is used up.

    A try before its time (a re-sent event asked for it) or one that called nobody uses up no step.
    """
    due_at = changed["due_at"]
    early = due_at is not None and now_ms < due_at
    if changed["status"] == "unknown" and not early:
        step = changed["step"] if found.waits else changed["step"] + 1
        if step >= len(SCHEDULE_S):
            changed["status"], changed["reason"] = "parked", "tries_used_up"
        else:
            changed["step"] = step
            pause_s = SCHEDULE_S[0] if found.waits else SCHEDULE_S[step]
            due_at = now_ms + pause_s * 1000
    if changed["status"] != "unknown":
        changed["due_at"] = changed["not_before"] = changed["next_try_at"] = None
        return
    wish = _wish(found.retry_after_s, now_ms)
    changed["due_at"], changed["not_before"] = due_at, wish
    next_at = due_at or now_ms
    if found.again_after_s is not None:
        next_at = now_ms + round(found.again_after_s * 1000)
    changed["next_try_at"] = max(next_at, wish or 0)


def _wish(retry_after_s: float | None, now_ms: int) -> int | None:
    """The moment before which the gateway wants no call."""
    return None if retry_after_s is None else now_ms + round(min(retry_after_s, LONGEST_WISH_S) * 1000)


def settles(entry: Entry | None) -> bool:
    """True if a nudge may try this payment: unknown; a parked one waits for a person."""
    return is_full(entry) and entry["status"] == "unknown"


def is_due(entry: Entry | None, now_ms: int) -> bool:
    """True if a nudge has to act now; nudges may be lost or doubled, so each one asks."""
    if not is_full(entry) or not settles(entry):
        return False
    return entry["next_try_at"] is None or entry["next_try_at"] <= now_ms


def gives_up(entry: PaymentEntry, now_ms: int, give_up_after_ms: int) -> bool:
    """True if the payment may become `failed` / `gave_up`: unknown for longer than that, never sent.

    An ambiguous one never fails by a timer (payments.md, "Outcomes"). Ask after a try, not instead.
    """
    # a refund may have waited for its charge: it is tried for as long as any, from its release on
    tried_from = entry["window_from"] if entry["action"] == "refund" else entry["first_seen_at"]
    age_ms = now_ms - tried_from
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
    action: str = "charge",
) -> ChargeState:
    """The user's state after one more charge result; the same fold that an audit makes over `charge-results`.

    Only what succeeded and is no replay moves money.
    """
    counted = "replayed" if replayed else status
    counts = dict(state["counts"]) if state else {}
    apart = _refunds_apart(state, counted if action == "refund" else None)
    counts[counted] = counts.get(counted, 0) + 1
    money = dict(state["money"]) if state else {}
    if status == "succeeded" and not replayed:
        had = money.get(currency) or Money(charged_minor=0, refunded_minor=0)
        charged, refunded = (amount_minor, 0) if action == "charge" else (0, amount_minor)
        moved = money[currency] = had.copy()
        moved["charged_minor"] += charged
        moved["refunded_minor"] += refunded
    last = state["last_payment"] if state else None
    if not replayed:
        last = {"payment_id": payment_id, "status": status, "at": at_ms}
    after: ChargeState = {
        "user_id": user_id, "money": money, "counts": counts, **apart, "last_payment": last
    }  # fmt: skip
    return keeping(state, after, ChargeState)


def _refunds_apart(state: ChargeState | None, counted: str | None) -> RefundsApart:
    """The counts of refunds after one more result, `counted` being the name of a refund's."""
    refunds = dict(state.get("refund_counts", {})) if state else {}
    if counted is not None:
        refunds[counted] = refunds.get(counted, 0) + 1
    if state is None or ("refund_counts" in state and "older_counts" not in state):
        return {"refund_counts": refunds}
    return {"refund_counts": refunds, "older_counts": dict(state.get("older_counts", state["counts"]))}
