"""What is written of a payment's outcome: rows, records, counters.

Pure: nothing is read or written here. What is known comes in, a Change goes out, which `Books.write` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from streamsocial_billing.domain.decision import (
    Adopt,
    Charge,
    Decision,
    Open,
    Refund,
    Reject,
    Replay,
    after_retry,
    charge_state_after,
    first_entry,
    holds,
)
from streamsocial_billing.domain.known import Known, Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.results import charge_result, payment_metric
from streamsocial_billing.domain.statuses import FINAL, OPEN
from tables.business_refs import business_key, naming
from tables.charges import ChargeState
from tables.open_payments import OpenPayment
from tables.payments import Entry, PaymentEntry, SettledBy, payment_key, written
from tables.task_counters import CHARGED, FINAL_RESULTS, FIRST_RESULTS, OPENED, OUTCOMES, PARKED, REFUNDED

NO_TOPIC: Final = "external"  # results of what a gateway made, in the counters
REPEATS: Final = OUTCOMES + "repeats"
ABOUT: Final = (
    "action", "product", "amount_minor", "currency", "gateway", "requested_at", "business_ref", "refund_of",
    "origin", "source",
)  # fmt: skip


Row = tuple[str, str, Mapping[str, Any] | None]
"""A table, a key of it, the value; None: there is none any more."""
Counts = tuple[tuple[str, int], ...]
"""What is added to which counter of the task."""
NOTHING: Final[Counts] = ()
NO_ROWS: Final[tuple[Row, ...]] = ()


class Answer(NamedTuple):
    """One ChargeResult, its metric, the user's charge state after it: always these three together.

    `facts` are those of its log line (outcome_lines.py).
    """

    user_id: str
    result: bytes
    product: str
    metric: bytes
    state: ChargeState
    facts: tuple[Any, ...]
    counts: Counts


class Change(NamedTuple):
    """All that one step changes of a payment.

    outcome  the entry, where it has an outcome that others may wait for; None: nothing follows
    warning  reason and text of what people should hear of
    fresh    the key of a payment that no table knew: there is no row to look at before one is written
    """

    user_id: str
    payment_id: str
    at_ms: int
    rows: tuple[Row, ...]
    answer: Answer | None = None
    counts: Counts = ()
    outcome: PaymentEntry | None = None
    warning: tuple[str, str] | None = None
    fresh: str | None = None


# ---- the ways to record an outcome


def record(
    received: Received, known: Known, decision: Decision, called: Called | None, at_ms: int,
    account: str = "",
) -> Change:  # fmt: skip
    """What an event comes to as it was decided, `called` where that was a call; else `account`."""
    match decision:
        case Charge(_, fingerprint) | Refund(_, fingerprint) if called is not None:
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
    user_id, payment_id, state = known.user_id, known.payment_id, known.state
    at_ms = entry["processed_at"]
    key, counts = payment_key(user_id, payment_id), NOTHING
    changed: tuple[Row, ...] = (("payments", key, written(entry)), *rows)
    if entry["status"] in OPEN:
        changed = (*changed, ("open_payments", key, open_payment(entry)))
        counts = _parked(None, entry)
    if entry["business_ref"] is not None and entry["action"] == "charge" and holds(entry):
        key_of_ref = business_key(user_id, entry["business_ref"])
        changed = (*changed, ("business_refs", key_of_ref, naming(payment_id)))
    answer = answered(_of_event(received), user_id, payment_id, state, called, at_ms)
    fresh = key if known.entry is None else None
    return Change(user_id, payment_id, at_ms, changed, answer, counts, entry, None, fresh)


def record_known(received: Received, known: Known, decision: Replay | Open | Reject, at_ms: int) -> Change:
    """The answer of an event that leaves its payment what it was."""
    user_id, payment_id, state = known.user_id, known.payment_id, known.state
    attempts, rows, counts = 0, NO_ROWS, NOTHING
    if isinstance(decision, Reject):
        found = Verdict("rejected", decision.reason, conflicts_with=decision.conflicts_with)
    else:
        attempts = decision.attempts
        conflicts_with = decision.conflicts_with if isinstance(decision, Replay) else None
        found = Verdict(decision.status, decision.reason, decision.gateway_ref, conflicts_with=conflicts_with)
    if isinstance(decision, Open):
        rows, counts = kept(known, decision.entry)
    answer = answered(
        _of_event(received), user_id, payment_id, state, Called(found, calls=attempts), at_ms,
        replayed=not isinstance(decision, Reject),
    )  # fmt: skip
    detail = decision.detail if isinstance(decision, Reject) else None
    warning = (decision.reason or "", detail) if detail is not None else None
    return Change(user_id, payment_id, at_ms, rows, answer, counts, warning=warning)


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
        final = Verdict(changed["status"], changed["reason"], changed["gateway_ref"])
        answer = answered(
            about(changed), known.user_id, known.payment_id, known.state,
            Called(final, calls=changed["attempts"]), at_ms, resolves=True,
        )  # fmt: skip
    return Change(known.user_id, known.payment_id, at_ms, rows, answer, counts, changed)


def record_kept(known: Known, entry: PaymentEntry, at_ms: int, *rows: Row) -> Change:
    """An open payment that stays open, with another plan; `rows`: what changes with it."""
    changed, counts = kept(known, entry)
    return Change(known.user_id, known.payment_id, at_ms, (*changed, *rows), None, counts)


# ---- their parts


def kept(known: Known, entry: PaymentEntry) -> tuple[tuple[Row, ...], Counts]:
    """The changed entry of a payment; it is listed among the open ones until it is settled."""
    key = payment_key(known.user_id, known.payment_id)
    rows: tuple[Row, ...] = (("payments", key, written(entry)),)
    if entry["status"] in OPEN:
        rows = (*rows, ("open_payments", key, open_payment(entry)))
    elif known.listed is not None:
        rows = (*rows, ("open_payments", key, None))
    return rows, _parked(known.listed, entry)


def _parked(listed: OpenPayment | None, entry: PaymentEntry) -> Counts:
    """Counts a payment that becomes parked, or no longer is; `listed` is its row before."""
    was = listed is not None and listed.get("status") == "parked"
    if was == (entry["status"] == "parked"):
        return ()
    return ((PARKED, -1 if was else 1),)


def entry_row(user_id: str, payment_id: str, entry: Entry) -> Row:
    """An entry whose status stays what it was."""
    return "payments", payment_key(user_id, payment_id), written(entry)


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


def _of_event(received: Received) -> dict[str, Any]:
    """What a result says of its payment, from the event."""
    payment = received.payment
    return {
        "action": payment.action, "product": payment.product, "amount_minor": payment.amount_minor,
        "currency": payment.currency, "gateway": payment.gateway, "requested_at": payment.requested_at,
        "business_ref": payment.business_ref, "refund_of": payment.refund_of, "origin": "event",
        "source": received.source,
    }  # fmt: skip


def about(entry: PaymentEntry) -> dict[str, Any]:
    """The same from the stored entry."""
    return {name: entry[name] for name in ABOUT}


def answered(
    about: Mapping[str, Any], user_id: str, payment_id: str, state: ChargeState | None, called: Called,
    at_ms: int, *, replayed: bool = False, resolves: bool = False,
) -> Answer:  # fmt: skip
    """One result with all that goes with it."""
    found, _, calls, gateway_ms, _ = called
    status, action, source = found.status, about["action"], about["source"]
    amount_minor, currency = about["amount_minor"], about["currency"]
    result = charge_result(
        **about, payment_id=payment_id, user_id=user_id, status=status, reason=found.reason,
        replayed=replayed, gateway_ref=found.gateway_ref, attempt=calls, processed_at=at_ms,
        resolves=resolves, conflicts_with=found.conflicts_with,
    )  # fmt: skip
    metric = payment_metric(
        payment_id=payment_id, product=about["product"], action=action, status=status, replayed=replayed,
        amount_minor=amount_minor, currency=currency, gateway=about["gateway"], gateway_ms=gateway_ms,
        at=at_ms,
    )  # fmt: skip
    after = charge_state_after(
        state, user_id, status, amount_minor, currency, replayed, payment_id, at_ms, action
    )
    offset = None if source is None else source["offset"]
    facts = payment_id, user_id, action, status, found.reason, calls, replayed, resolves, offset
    counts = _counts(about, status, replayed, resolves)
    return Answer(user_id, result, about["product"], metric, after, facts, counts)


def _counts(about: Mapping[str, Any], status: str, replayed: bool, resolves: bool) -> Counts:
    """Counts what a result says itself, not what the tables do: they are the audit's other side."""
    source, external = about["source"], about["origin"] == "external"
    came_from = NO_TOPIC if source is None else source["topic"]
    first = FINAL_RESULTS if resolves else named(FIRST_RESULTS, came_from)
    if replayed:
        return ((first, 1), (REPEATS, 1))
    outcome = status
    if status == "succeeded":
        outcome, moved = ("refunded", REFUNDED) if about["action"] == "refund" else ("charged", CHARGED)
        money = (named(moved, about["currency"]), about["amount_minor"])
        if external:  # those are counted as FIRST_RESULTS of NO_TOPIC
            return ((first, 1), money)
        return ((first, 1), money, (named(OUTCOMES, outcome), 1))
    if status not in OPEN:
        return ((first, 1),) if external else ((first, 1), (named(OUTCOMES, outcome), 1))
    return ((first, 1),) if resolves else ((first, 1), (OPENED, 1))


@lru_cache(maxsize=1000)
def named(kind: str, rest: str) -> str:
    """The name of a counter; one text for all units that wait to be committed."""
    return kind + rest
