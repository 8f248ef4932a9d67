"""What a payment event leads to, decided without doing it.

Pure: no await, no I/O, no clock; nothing that comes in is changed. The rules are payments.md's table
"Decision before the gateway". Final statuses never change again; open ones wait for their outcome.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from streamsocial_billing.domain.events import ACTIONS, PaymentEvent
from streamsocial_billing.domain.gateway_calls import PENDING, Traits
from streamsocial_billing.domain.outcomes import Verdict, undecided
from streamsocial_billing.domain.payment_entry import looked_at_by
from streamsocial_billing.domain.payment_identity import fingerprint, gateway_key_of
from streamsocial_billing.domain.statuses import FINAL, OPEN
from tables.payments import Entry, ObservedEntry, PaymentEntry, SmallEntry, is_full

DAY_MS: Final = 86_400_000
DEDUP_RETENTION_MS: Final = 35 * DAY_MS
"""How long a full entry is kept after it became final; an older event without entry is expired."""


class Execute(Struct, frozen=True, gc=False):
    """Call the gateway with this key (for a refund: reserve first), then store first_entry()."""

    idempotency_key: str
    fingerprint: str


class Adopt(Struct, frozen=True):
    """Store the event with what the gateway told of it before; emit that, `replayed: false`; no call."""

    found: Verdict
    gateway_account: str


class Replay(Struct, frozen=True):
    """Emit the stored final outcome again with `replayed: true`; no call, the entry stays."""

    status: str
    reason: str | None
    gateway_ref: str | None
    attempts: int
    conflicts_with: str | None = None


class Open(Struct, frozen=True):
    """Emit the open outcome with `replayed: true`, store `entry`; no call. Never settles anything."""

    status: str
    reason: str | None
    gateway_ref: str | None
    attempts: int
    entry: PaymentEntry


class Reject(Struct, frozen=True):
    """Emit `rejected` with `reason`; no call. `detail` is for the log; `stored`: the entry records it."""

    reason: str
    stored: bool
    detail: str | None = None
    conflicts_with: str | None = None


Decision = Execute | Adopt | Replay | Open | Reject


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
    if now_ms - event.requested_at > dedup_retention_ms or now_ms - appended_ms > dedup_retention_ms:
        return Reject("expired", stored=False)  # a dropped entry may have charged it
    if event.action not in actions:
        return Reject("unsupported_action", stored=False)
    if event.gateway not in configured_gateways:
        return Reject("gateway_not_configured", stored=False)
    if event.action != "refund":
        if traits is not None and (reason := beyond_limits(event, traits)) is not None:
            return Reject(reason, stored=True)
        if held_by is not None:
            return Reject("duplicate_business_ref", stored=True, conflicts_with=held_by)
    return Execute(gateway_key_of(event.user_id, event.action, event.payment_id), fingerprint(event))


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
    if "authentication" in entry:
        return looked_at_by(entry, now_ms)
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
    status, reason, intent = entry["seen"], entry["reason"], entry.get("intent")
    if status not in FINAL and intent is not None:
        return Adopt(undecided(reason, intent, entry.get("intent_charge")), entry["gateway_account"])
    if status not in FINAL:
        status, reason = "unknown", PENDING
    found = Verdict(
        status, reason, entry["gateway_ref"], soft=entry["soft"], ambiguous=status == "unknown",
        intent=intent, intent_charge=entry.get("intent_charge"),
    )  # fmt: skip
    return Adopt(found, entry["gateway_account"])


def beyond_limits(event: PaymentEvent, traits: Traits) -> str | None:
    """The reason to refuse the amount at this gateway, None if it is within the limits."""
    amount, currency = event.amount_minor, event.currency
    if amount < (traits.min_minor[currency] if currency in traits.min_minor else 1):
        return "amount_below_minimum"
    if currency in traits.max_minor and amount > traits.max_minor[currency]:
        return "amount_above_maximum"
    return None


def holds(entry: Entry | None) -> bool:
    """True if a charge holds its business_ref: succeeded (partly refunded too), unknown or parked."""
    if entry is None:
        return False
    if entry["status"] == "succeeded":
        return "seen" not in entry and entry["refunded_minor"] < entry["amount_minor"]
    return entry["status"] in OPEN


def proven_absent(entry: PaymentEntry, now_ms: int, traits: Traits) -> bool:
    """True if the gateway, which says now that it has nothing, said so before, long enough ago."""
    since = entry["absent_at"]
    return since is not None and now_ms - since >= traits.consistency_delay_s * 1000


def settles(entry: Entry | None) -> bool:
    """True if a trigger may try this payment: unknown; a parked one waits for a person."""
    return is_full(entry) and entry["status"] == "unknown"


def is_due(entry: Entry | None, now_ms: int) -> bool:
    """True if a trigger has to act now; triggers may be lost or doubled, so each one asks."""
    if not is_full(entry) or not settles(entry):
        return False
    if "authentication" in entry:
        return entry["authentication"]["look_at"] <= now_ms
    return entry["next_try_at"] is None or entry["next_try_at"] <= now_ms


def gives_up(entry: PaymentEntry, now_ms: int, give_up_after_ms: int) -> bool:
    """True if the payment may become `failed` / `gave_up`: unknown for longer than that, never sent.

    An ambiguous one never fails by a timer (payments.md, "Outcomes"). Ask after a try, not instead.
    """
    # a refund may have waited for its charge: it is tried for as long as any, from its release on
    tried_from = entry["window_from"] if entry["action"] == "refund" else entry["first_seen_at"]
    age_ms = now_ms - tried_from
    return settles(entry) and not entry["ever_ambiguous"] and age_ms > give_up_after_ms
