"""What is written of a payment's outcome: rows, records, counters.

Pure: nothing is read or written here. What is known comes in, a Change goes out, which
`UnitWriter.write` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType, to_builtins

from streamsocial_billing.domain.charge_state import state_after
from streamsocial_billing.domain.decision import Adopt, Decision, Execute, Open, Reject, Replay, holds
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.known import Known, Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import PATIENCE_MS, after_retry, first_entry, settled_row
from streamsocial_billing.domain.refund_rules import Charged
from streamsocial_billing.domain.results import ChargeResult, PaymentMetric
from streamsocial_billing.domain.statuses import FINAL, OPEN
from tables.awaited_charges import AwaitedCharge
from tables.business_refs import business_key, naming
from tables.charges import AnyState
from tables.open_payments import OpenPayment
from tables.payments import Entry, PaymentEntry, SettledBy, SettledRow, filled, payment_key, written
from tables.task_counters import CHARGED, FINAL_RESULTS, FIRST_RESULTS, OPENED, OUTCOMES, PARKED, REFUNDED

NO_TOPIC: Final = "external"  # results of what a gateway made, in the counters
REPEATS: Final = OUTCOMES + "repeats"


class Row(Struct, frozen=True):
    """A table, a key of it, the value; None: there is none any more.

    before  the row that stands there, whose fields of a newer release stay; None: there is none, or the value
            was made of it. Left out: who writes has to look
    """

    table: str
    key: str
    value: Mapping[str, Any] | SettledRow | None
    before: Mapping[str, Any] | UnsetType | None = UNSET


Counts = tuple[tuple[str, int], ...]
"""What is added to which counter of the task."""
NOTHING: Final[Counts] = ()
NO_ROWS: Final[tuple[Row, ...]] = ()


class Answer(Struct, frozen=True):
    """One ChargeResult, its metric, the user's charge state after it: always these three together."""

    result: ChargeResult
    metric: PaymentMetric
    state: AnyState
    counts: Counts


class Change(Struct, frozen=True):
    """All that one step changes of a payment.

    outcome  the entry, where it has an outcome that others may wait for; None: nothing follows
    waiting  what waits for that, where it is a charge's
    charge   of a refund, as this change leaves it; None: who needs it has to look
    warning  reason and text of what people should hear of
    asks     its intent wants its customer from now on: the platform is to be told, once
    """

    user_id: str
    payment_id: str
    at_ms: int
    rows: tuple[Row, ...]
    answer: Answer | None = None
    counts: Counts = ()
    outcome: PaymentEntry | None = None
    waiting: AwaitedCharge | None = None
    charge: Charged | None = None
    warning: tuple[str, str] | None = None
    asks: bool = False


# ---- the ways to record an outcome


def record(
    received: Received, known: Known, decision: Decision, called: Called | None, at_ms: int,
    account: str = "",
) -> Change:  # fmt: skip
    """What an event comes to as it was decided, `called` where that was a call; else `account`."""
    match decision:
        case Execute() if called is not None:
            fingerprint = decision.fingerprint
            if is_over(received.payment, known, called.found):  # nearly always
                return record_settled(received, known, called, at_ms, fingerprint)
            return record_first(received, known, first_entry(received, called, at_ms, fingerprint), called)
        case Reject(reason, True, _, conflicts_with):
            called = Called(Verdict("rejected", reason, conflicts_with=conflicts_with), account)
            return record_first(received, known, first_entry(received, called, at_ms), called)
        case Adopt(found, seen_account):
            called = Called(found, seen_account)
            return record_first(received, known, first_entry(received, called, at_ms), called)
        case Replay() | Open() | Reject():
            return record_known(received, known, decision, at_ms)
    raise RuntimeError(f"decided {decision} for a {received.payment.action} that called nobody")


def record_first(
    received: Received, known: Known, entry: PaymentEntry, called: Called, *rows: Row
) -> Change:
    """The outcome of a payment that had no entry, or an observed one; `rows`: what changes with it."""
    user_id, payment_id, counts = known.user_id, known.payment_id, NOTHING
    key, asks = known.key, False
    changed: tuple[Row, ...] = (Row("payments", key, written(entry), known.entry), *rows)
    if entry["status"] in OPEN:
        asks = "authentication" in entry
        changed = (*changed, Row("open_payments", key, open_payment(entry), known.listed))
        counts = _parked(None, entry)
    if entry["business_ref"] is not None and entry["action"] == "charge":
        changed = (*changed, *_naming(entry["business_ref"], known, entry))
    result = result_of_event(received, called, entry["processed_at"])
    return Change(
        user_id, payment_id, result.processed_at, changed, answered(result, known.state, called.gateway_ms),
        counts=counts, outcome=entry, waiting=known.waiting, asks=asks,
    )  # fmt: skip


def is_over(payment: PaymentEvent, known: Known, found: Verdict) -> bool:
    """True for a charge that ends at once, with nothing special to keep, and that nobody waits for."""
    usual = not (found.soft or found.ask_only) and found.conflicts_with is None
    return usual and payment.action == "charge" and known.waiting is None and found.status in FINAL


def record_settled(
    received: Received, known: Known, called: Called, at_ms: int, fingerprint: str
) -> Change:
    """The same of a charge that `is_over`: its row is made as it is written."""
    payment, row = received.payment, settled_row(received, called, at_ms, fingerprint)
    rows: tuple[Row, ...] = (Row("payments", known.key, row, known.entry),)
    outcome = None
    if payment.business_ref is not None:  # else nothing follows
        outcome = filled(to_builtins(row))
        rows = (*rows, *_naming(payment.business_ref, known, outcome))
    answer = answered(result_of_event(received, called, at_ms), known.state, called.gateway_ms)
    return Change(known.user_id, known.payment_id, at_ms, rows, answer, outcome=outcome)


def _naming(business_ref: str, known: Known, charge: PaymentEntry) -> tuple[Row, ...]:
    """The row of a charge's business_ref, if it holds it."""
    if not holds(charge):
        return NO_ROWS
    key = business_key(known.user_id, business_ref)
    return (Row("business_refs", key, naming(known.payment_id), known.named),)


def record_known(received: Received, known: Known, decision: Replay | Open | Reject, at_ms: int) -> Change:
    """The answer of an event that leaves its payment what it was."""
    rows, counts = NO_ROWS, NOTHING
    match decision:
        case Reject(reason, _, _, conflicts_with):
            called = Called(Verdict("rejected", reason, conflicts_with=conflicts_with))
        case Replay(status, reason, ref, attempts, conflicts_with):
            called = Called(Verdict(status, reason, ref, conflicts_with=conflicts_with), calls=attempts)
        case Open(status, reason, ref, attempts, entry):
            called = Called(Verdict(status, reason, ref), calls=attempts)
            rows, counts = kept(known, entry)
    result = result_of_event(received, called, at_ms, replayed=not isinstance(decision, Reject))
    detail = decision.detail if isinstance(decision, Reject) else None
    return Change(
        known.user_id, known.payment_id, at_ms, rows, answered(result, known.state), counts=counts,
        warning=None if detail is None else (decision.reason or "", detail),
    )  # fmt: skip


def record_again(
    known: Known, entry: PaymentEntry, called: Called, at_ms: int, by: SettledBy | None = None,
    patience_ms: int = PATIENCE_MS,
) -> Change:  # fmt: skip
    """What an open payment is after `calls` more, or after a person settled it (`by`).

    `entry` is the stored one. A final status brings the result that resolves the payment; from unknown to
    parked there is none. Raises ValueError for a final payment, whose outcome never changes again.
    """
    changed = after_retry(
        entry, called.found, calls=called.calls, now_ms=at_ms, by=by, patience_ms=patience_ms
    )
    changed["gateway_account"] = called.account or entry["gateway_account"]  # if it was not known before
    rows, counts = kept(known, changed)
    answer = None
    if changed["status"] in FINAL:
        result = result_of_entry(known.user_id, known.payment_id, changed, at_ms, resolves=True)
        answer = answered(result, known.state)
    return Change(
        known.user_id, known.payment_id, at_ms, rows, answer, counts=counts, outcome=changed,
        waiting=known.waiting, asks="authentication" in changed and "authentication" not in entry,
    )  # fmt: skip


def record_kept(known: Known, entry: PaymentEntry, at_ms: int, *rows: Row) -> Change:
    """An open payment that stays open, with another plan; `rows`: what changes with it."""
    changed, counts = kept(known, entry)
    return Change(known.user_id, known.payment_id, at_ms, (*changed, *rows), counts=counts)


# ---- their parts


def kept(known: Known, entry: PaymentEntry) -> tuple[tuple[Row, ...], Counts]:
    """The changed entry of a payment; it is listed among the open ones until it is settled."""
    key = known.key
    rows: tuple[Row, ...] = (Row("payments", key, written(entry), known.entry),)
    if entry["status"] in OPEN:
        rows = (*rows, Row("open_payments", key, open_payment(entry), known.listed))
    elif known.listed is not None:
        rows = (*rows, Row("open_payments", key, None))
    return rows, _parked(known.listed, entry)


def _parked(listed: OpenPayment | None, entry: PaymentEntry) -> Counts:
    """Counts a payment that becomes parked, or no longer is; `listed` is its row before."""
    was = listed is not None and listed.get("status") == "parked"
    if was == (entry["status"] == "parked"):
        return ()
    return ((PARKED, -1 if was else 1),)


def entry_row(user_id: str, payment_id: str, entry: Entry) -> Row:
    """An entry whose status stays what it was; it may be one that was made anew."""
    return Row("payments", payment_key(user_id, payment_id), written(entry))


def changed_row(user_id: str, payment_id: str, entry: Entry) -> Row:
    """The same of an entry that is a changed copy of what stands there."""
    return Row("payments", payment_key(user_id, payment_id), written(entry), None)


def open_payment(entry: PaymentEntry) -> OpenPayment:
    """The row of an open payment."""
    row: OpenPayment = {
        "next_try_at": entry["next_try_at"],
        "status": entry["status"],
        "since": entry["first_seen_at"],
        "gateway": entry["gateway"],
        "account": entry["gateway_account"],
        "amount_minor": entry["amount_minor"],
        "currency": entry["currency"],
    }
    if "authentication" in entry and entry["status"] == "unknown":
        row["look_at"] = entry["authentication"]["look_at"]
    return row


# ---- the result


def result_of_event(
    received: Received, called: Called, at_ms: int, *, replayed: bool = False
) -> ChargeResult:
    """The result of an event."""
    payment, found = received.payment, called.found
    return ChargeResult(  # in the order of its fields: by their names it takes six times as long
        payment.payment_id, payment.user_id, payment.action, payment.product, found.status, found.reason,
        replayed, payment.amount_minor, payment.currency, payment.gateway, found.gateway_ref, called.calls,
        payment.requested_at, at_ms, received.source, False, payment.business_ref, payment.refund_of,
        found.conflicts_with, "event", found.intent_charge or UNSET,
    )  # fmt: skip


def result_of_entry(
    user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int, *, resolves: bool = False
) -> ChargeResult:
    """The result that a stored entry stands for."""
    return ChargeResult(
        payment_id=payment_id, user_id=user_id, action=entry["action"], product=entry["product"],
        status=entry["status"], reason=entry["reason"], replayed=False, amount_minor=entry["amount_minor"],
        currency=entry["currency"], gateway=entry["gateway"], gateway_ref=entry["gateway_ref"],
        attempt=entry["attempts"], requested_at=entry["requested_at"], processed_at=at_ms,
        source=entry["source"], resolves=resolves, business_ref=entry["business_ref"],
        refund_of=entry["refund_of"], origin=entry["origin"],
        intent_charge=entry.get("intent_charge") or UNSET,
    )  # fmt: skip


def answered(result: ChargeResult, state: AnyState | None, gateway_ms: int | None = None) -> Answer:
    """A result with all that goes with it; `state` is the user's before it."""
    metric = PaymentMetric(
        result.payment_id, result.product, result.action, result.status, result.replayed,
        result.amount_minor, result.currency, result.gateway, gateway_ms, result.processed_at,
    )  # fmt: skip
    return Answer(result, metric, state_after(state, result), _counts(result))


def _counts(result: ChargeResult) -> Counts:
    """Counts what a result says itself, not what the tables do: they are the audit's other side."""
    came_from = NO_TOPIC if result.source is None else result.source["topic"]
    first = FINAL_RESULTS if result.resolves else named(FIRST_RESULTS, came_from)
    if result.replayed:
        return ((first, 1), (REPEATS, 1))
    said, money = _counters(first, result.status, result.action, result.currency, result.origin)
    return said if money is None else (*said, (money, result.amount_minor))


@lru_cache(maxsize=1000)
def _counters(
    first: str, status: str, action: str, currency: str, origin: str
) -> tuple[Counts, str | None]:  # fmt: skip
    """What is counted of each such result, whatever its amount; the counter that the amount is added to."""
    outcome, money, external = status, None, origin == "external"
    if status == "succeeded":
        outcome, moved = ("refunded", REFUNDED) if action == "refund" else ("charged", CHARGED)
        money = named(moved, currency)
    if status in OPEN:
        return ((first, 1),) if first == FINAL_RESULTS else ((first, 1), (OPENED, 1)), money
    # external ones are counted as FIRST_RESULTS of NO_TOPIC
    return ((first, 1),) if external else ((first, 1), (named(OUTCOMES, outcome), 1)), money


@lru_cache(maxsize=1000)
def named(kind: str, rest: str) -> str:
    """The name of a counter; one text for all units that wait to be committed."""
    return kind + rest
