"""What is written of a payment's outcome: rows, records, counters.

Pure: nothing is read or written here. What is known comes in, a Change goes out, which `Books.write` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from streamsocial_billing.domain.charge_state import charge_state_after
from streamsocial_billing.domain.decision import Adopt, Decision, Execute, Open, Reject, Replay, holds
from streamsocial_billing.domain.known import Known, Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import after_retry, first_entry
from streamsocial_billing.domain.refund_rules import Charged
from streamsocial_billing.domain.results import ChargeResult, PaymentMetric
from streamsocial_billing.domain.statuses import FINAL, OPEN
from tables.awaited_charges import AwaitedCharge
from tables.business_refs import business_key, naming
from tables.charges import ChargeState
from tables.open_payments import OpenPayment
from tables.payments import Entry, PaymentEntry, SettledBy, payment_key, written
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
    value: Mapping[str, Any] | None
    before: Mapping[str, Any] | UnsetType | None = UNSET


Counts = tuple[tuple[str, int], ...]
"""What is added to which counter of the task."""
NOTHING: Final[Counts] = ()
NO_ROWS: Final[tuple[Row, ...]] = ()


class Answer(Struct, frozen=True):
    """One ChargeResult, its metric, the user's charge state after it: always these three together."""

    result: ChargeResult
    metric: PaymentMetric
    state: ChargeState
    counts: Counts


class Change(Struct, frozen=True):
    """All that one step changes of a payment.

    outcome  the entry, where it has an outcome that others may wait for; None: nothing follows
    waiting  what waits for that, where it is a charge's
    charge   of a refund, as this change leaves it; None: who needs it has to look
    warning  reason and text of what people should hear of
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


# ---- the ways to record an outcome


def record(
    received: Received, known: Known, decision: Decision, called: Called | None, at_ms: int,
    account: str = "",
) -> Change:  # fmt: skip
    """What an event comes to as it was decided, `called` where that was a call; else `account`."""
    match decision:
        case Execute(_, fingerprint) if called is not None:
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
    key = known.key
    changed: tuple[Row, ...] = (Row("payments", key, written(entry), known.entry), *rows)
    if entry["status"] in OPEN:
        changed = (*changed, Row("open_payments", key, open_payment(entry), known.listed))
        counts = _parked(None, entry)
    if entry["business_ref"] is not None and entry["action"] == "charge" and holds(entry):
        key_of_ref = business_key(user_id, entry["business_ref"])
        changed = (*changed, Row("business_refs", key_of_ref, naming(payment_id), known.named))
    result = result_of_event(received, called, entry["processed_at"])
    return Change(
        user_id, payment_id, result.processed_at, changed, answered(result, known.state, called.gateway_ms),
        counts=counts, outcome=entry, waiting=known.waiting,
    )  # fmt: skip


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
    known: Known, entry: PaymentEntry, called: Called, at_ms: int, by: SettledBy | None = None
) -> Change:
    """What an open payment is after `calls` more, or after a person settled it (`by`).

    `entry` is the stored one. A final status brings the result that resolves the payment; from unknown to
    parked there is none. Raises ValueError for a final payment, whose outcome never changes again.
    """
    changed = after_retry(entry, called.found, calls=called.calls, now_ms=at_ms, by=by)
    changed["gateway_account"] = called.account or entry["gateway_account"]  # if it was not known before
    rows, counts = kept(known, changed)
    answer = None
    if changed["status"] in FINAL:
        result = result_of_entry(known.user_id, known.payment_id, changed, at_ms, resolves=True)
        answer = answered(result, known.state)
    return Change(
        known.user_id, known.payment_id, at_ms, rows, answer, counts=counts, outcome=changed,
        waiting=known.waiting,
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
    return {
        "next_try_at": entry["next_try_at"],
        "status": entry["status"],
        "since": entry["first_seen_at"],
        "gateway": entry["gateway"],
        "account": entry["gateway_account"],
        "amount_minor": entry["amount_minor"],
        "currency": entry["currency"],
    }


# ---- the result


def result_of_event(
    received: Received, called: Called, at_ms: int, *, replayed: bool = False
) -> ChargeResult:
    """The result of an event."""
    payment, found = received.payment, called.found
    return ChargeResult(
        payment_id=payment.payment_id, user_id=payment.user_id, action=payment.action,
        product=payment.product, status=found.status, reason=found.reason, replayed=replayed,
        amount_minor=payment.amount_minor, currency=payment.currency, gateway=payment.gateway,
        gateway_ref=found.gateway_ref, attempt=called.calls, requested_at=payment.requested_at,
        processed_at=at_ms, source=received.source, business_ref=payment.business_ref,
        refund_of=payment.refund_of, conflicts_with=found.conflicts_with,
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
    )  # fmt: skip


def answered(result: ChargeResult, state: ChargeState | None, gateway_ms: int | None = None) -> Answer:
    """A result with all that goes with it; `state` is the user's before it."""
    metric = PaymentMetric(
        payment_id=result.payment_id, product=result.product, action=result.action, status=result.status,
        replayed=result.replayed, amount_minor=result.amount_minor, currency=result.currency,
        gateway=result.gateway, gateway_ms=gateway_ms, at=result.processed_at,
    )  # fmt: skip
    return Answer(result, metric, charge_state_after(state, result), _counts(result))


def _counts(result: ChargeResult) -> Counts:
    """Counts what a result says itself, not what the tables do: they are the audit's other side."""
    status, external = result.status, result.origin == "external"
    came_from = NO_TOPIC if result.source is None else result.source["topic"]
    first = FINAL_RESULTS if result.resolves else named(FIRST_RESULTS, came_from)
    if result.replayed:
        return ((first, 1), (REPEATS, 1))
    outcome = status
    if status == "succeeded":
        outcome, moved = ("refunded", REFUNDED) if result.action == "refund" else ("charged", CHARGED)
        money = (named(moved, result.currency), result.amount_minor)
        if external:  # those are counted as FIRST_RESULTS of NO_TOPIC
            return ((first, 1), money)
        return ((first, 1), money, (named(OUTCOMES, outcome), 1))
    if status not in OPEN:
        return ((first, 1),) if external else ((first, 1), (named(OUTCOMES, outcome), 1))
    return ((first, 1),) if result.resolves else ((first, 1), (OPENED, 1))


@lru_cache(maxsize=1000)
def named(kind: str, rest: str) -> str:
    """The name of a counter; one text for all units that wait to be committed."""
    return kind + rest
