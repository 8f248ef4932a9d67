"""What must be true of the books.

1. Every event that was handled has exactly one result with resolves=false, or exactly one dead letter, about
   the same payment.
2. Only an open result that is no replay is followed by a final record with resolves=true, by one at most.
3. Every result has one metric.
4. No payment succeeded twice, none has two final outcomes, none has two charges or refunds at the gateway.
5. Every succeeded result has its charge or refund at the gateway with the same amount, and the other way.
6. The table `payments` holds the last outcome of each payment.
7. The table `charges` is the fold of each user's results.
8. Money per currency, charged or given back, is the same in results, ledger, tables.
9. No charge gave back more than it captured, in the results or at the gateway; its entry says how much.

A dispute is in no list of the gateway that is read here: what was told of it counts on the gateway's side.
A refund that failed after it succeeded is, at the gateway, a refund that failed: its two results are held
against that row, and count on the gateway's side if it says so.
Only gateways whose lists were read are compared. What waits is no problem: an event that nobody has handled,
a payment that is open. Their money may have moved at the gateway already, so it is not compared yet;
`unsettled` names them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from streamsocial_billing.audit.books import Books, LedgerCharge, LedgerRefund, Result, Source
from streamsocial_billing.audit.money import (
    DISPUTES,
    came_back,
    charged,
    failed_later,
    given_back_by_charge,
    money_of,
    money_per_currency,
    moved_ahead,
    not_compared,
    reference_of,
    refunded,
)
from streamsocial_billing.domain.statuses import FINAL, NOT_STORED

TABLE_PAYMENTS: Final = "payments changelog fold differs"
TABLE_CHARGES: Final = "charges changelog fold differs"
SUMS: Final = frozenset({"money differs", "refunded money differs", "figures do not add up"})
"""Kinds of problems that are about sums, which change while workers are at work."""
class Problem(NamedTuple):
    """One thing that is not as it must be: its kind, what it is about, what was found."""

    kind: str
    about: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}: {self.detail}"


def problems_of(books: Books) -> Iterator[Problem]:
    """Every problem, check by check."""
    for check in CHECKS:
        yield from check(books)


def unsettled(books: Books) -> Iterator[Problem]:
    """What a system that has come to rest must not have: nothing of it is wrong while it is at work."""
    for source, sent in books.waiting().items():
        yield Problem("event not handled yet", f"{sent.payment or 'unreadable event'} at {_at(source)}", "")
    settled = {(one.payment, one.source) for one in books.results if one.resolves}
    for one in books.results:
        if one.opens and (one.payment, one.source) not in settled:
            detail = f"unsettled event at {_at(one.source)}"
            yield Problem("open payment without a final record", one.payment, detail)


def every_record_is_readable(books: Books) -> Iterator[Problem]:
    """Our own records are what they should be."""
    for place in books.unreadable:
        yield Problem("unreadable record", place, "not a record of this app")
    for place in books.strangers:
        yield Problem("result without event", place, "its source is not on the payments topic")


def every_event_is_answered_once(books: Books) -> Iterator[Problem]:
    """Check 1."""
    answers: dict[Source, list[Result]] = defaultdict(list)
    for result in books.results:
        if result.source is not None and not result.resolves:
            answers[result.source].append(result)
    waiting = books.waiting()
    for source, sent in books.sent.items():
        if source in waiting:
            continue
        got, dead = answers.get(source, []), books.dead[source]
        about = f"{sent.payment or 'unreadable event'} at {_at(source)}"
        kind = _answer_problem(len(got), dead)
        if kind:
            yield Problem(kind, about, f"{len(got)} results, {dead} dead letters")
        for result in got:
            if result[0] != sent.payment or (result.amount_minor, result.currency) != sent[1:]:
                yield Problem("result differs from its event", about, f"{sent}, {result}")
    for source in {*answers, *books.dead} - books.sent.keys():
        if source[1] >= books.log_start.get(source[0], 0):
            yield Problem("result without event", _at(source), "nothing was sent there")


def _answer_problem(results: int, dead: int) -> str | None:
    if results + dead == 1:
        return None
    if results and dead:
        return "result and dead letter"
    if results > 1:
        return "double result"
    return "double dead letter" if dead else "lost event"


def no_open_payment_is_settled_twice(books: Books) -> Iterator[Problem]:
    """Check 2."""
    opened = {(one.payment, one.source) for one in books.results if one.opens}
    settled = Counter((one.payment, one.source) for one in books.results if one.resolves)
    for payment, source in opened:
        if settled[payment, source] > 1:
            detail = f"{settled[payment, source]} records with resolves=true"
            yield Problem("settled twice", payment, detail)
    for payment, source in settled.keys() - opened:
        yield Problem("settled without being open", payment, f"event at {_at(source)}")
    for one in books.results:
        if one.resolves and (one.status not in FINAL or one.replayed):
            detail = f"{one.status}, replayed: {one.replayed}"
            yield Problem("settling record is not final", one.payment, detail)


def every_result_has_a_metric(books: Books) -> Iterator[Problem]:
    """Check 3."""
    wanted = Counter((_payment_id(one.payment), one.status, one.replayed) for one in books.results)
    for key in wanted.keys() | books.metrics.keys():
        if wanted[key] != books.metrics[key]:
            kind = "missing metric" if wanted[key] > books.metrics[key] else "metric without result"
            what = f"{key[1]}{', replayed' if key[2] else ''}"
            yield Problem(kind, key[0], f"{wanted[key]} results {what}, {books.metrics[key]} metrics")


def no_payment_moves_twice(books: Books) -> Iterator[Problem]:
    """Check 4."""
    finals: dict[str, list[Result]] = defaultdict(list)
    for one in books.results:
        if one.status in FINAL and not one.replayed and one.reason not in NOT_STORED:
            finals[one.payment].append(one)
    for payment, outcomes in finals.items():
        statuses = [one.status for one in outcomes]
        if statuses.count("succeeded") > 1:
            kind = "charged" if outcomes[0].action == "charge" else "refunded"
            yield Problem(f"{kind} twice in the results", payment, ", ".join(statuses))
        elif len(statuses) > 1:
            yield Problem("two final outcomes", payment, ", ".join(statuses))
    for kind, moved in (("charged", list(charged(books))), ("refunded", list(refunded(books)))):
        by_ref: dict[str, list[LedgerCharge | LedgerRefund]] = defaultdict(list)
        for row in moved:
            if row.ref is not None:
                by_ref[row.ref].append(row)
        for same in by_ref.values():
            if len(same) > 1:
                ids = ", ".join(row.id for row in same)
                yield Problem(f"{kind} twice at the gateway", same[0].payment, ids)


def every_charge_has_its_result(books: Books) -> Iterator[Problem]:
    """Check 5 of charges."""
    results = [one for one in books.results if one.moved and one.action == "charge"]
    kept = [one for one in results if not came_back(one)]
    yield from _pairs("charge", books, kept, list(charged(books)))


def every_refund_has_its_result(books: Books) -> Iterator[Problem]:
    """Check 5 of refunds."""
    results = [one for one in books.results if one.moved and one.action == "refund"]
    failed = failed_later(books)
    kept = [one for one in results if one.gateway_ref not in failed]
    yield from _pairs("refund", books, kept, list(refunded(books)))


def every_refund_that_failed_had_succeeded(books: Books) -> Iterator[Problem]:
    """Check 5 of refunds that failed afterwards: they had succeeded, the gateway has them as failed."""
    refunds = {one.gateway_ref: one for one in books.results if one.moved and one.action == "refund"}
    at_gateway = {row.id: row for row in books.refunds}
    for one in filter(came_back, books.results):
        refund, row = refunds.get(one.gateway_ref), at_gateway.get(one.gateway_ref or "")
        if refund is None:
            yield Problem("failure without refund", one.payment, f"{one.gateway_ref} had not succeeded")
        elif (refund.amount_minor, refund.currency) != (one.amount_minor, one.currency):
            detail = f"refunded {refund.amount_minor} {refund.currency}, came back {one.amount_minor}"
            yield Problem("amount differs", one.payment, detail)
        if one.gateway in books.listed and (row is None or row.status != "failed"):
            status = "nowhere" if row is None else f"as {row.status}"
            detail = f"the gateway has {one.gateway_ref} {status}"
            yield Problem("failure without its refund's failure", one.payment, detail)


def _pairs(
    kind: str, books: Books, moved: Iterable[Result], rows: Sequence[LedgerCharge | LedgerRefund]
) -> Iterator[Problem]:
    """Found by the gateway key, which is a function of the payment; what the gateway made, by its own id."""
    results = [one for one in moved if one.gateway in books.listed]
    pending = books.pending()
    told = {one.gateway_ref: one for one in results if one.external}
    succeeded = {reference_of(one): one for one in results if not one.external}
    by_ref = {row.ref: row for row in rows}
    for row in rows:
        result = succeeded.get(row.ref or "") or told.get(row.id)
        about = f"{row.payment} ({row.id})"
        if result is None and row.payment in pending:
            continue
        if result is None:
            yield Problem(f"{kind} without result", about, f"{row.amount_minor} {row.currency} moved")
        elif (row.amount_minor, row.currency) != (result.amount_minor, result.currency):
            detail = f"gateway {row.amount_minor} {row.currency}, "
            detail += f"result {result.amount_minor} {result.currency}"
            yield Problem("amount differs", about, detail)
        elif by_ref[row.ref] is row and row.id != result.gateway_ref and not result.external:
            yield Problem("gateway reference differs", about, f"result: {result.gateway_ref}")
    ids = {row.id for row in rows}
    missing = [one for key, one in succeeded.items() if key not in by_ref]
    missing += [one for ref, one in told.items() if ref not in ids and one.reason not in DISPUTES]
    for one in missing:
        yield Problem(f"result without {kind}", one.payment, f"{one.amount_minor} {one.currency} not moved")


def table_payments_holds_the_outcomes(books: Books) -> Iterator[Problem]:
    """Check 6; going from unknown to parked changes the table alone."""
    last: dict[str, Result] = {}
    for one in books.results:
        if not one.replayed and one.reason not in NOT_STORED:
            if one.resolves or one.payment not in last or not last[one.payment].resolves:
                last[one.payment] = one
    for payment, one in last.items():
        entry = books.entries.get(payment)
        if entry is None:
            yield Problem(TABLE_PAYMENTS, payment, f"no entry, the result says {one.status}")
            continue
        expected, got = (one.status, one.amount_minor, one.currency, one.gateway_ref), entry[:4]
        parked = one.status == "unknown" and entry.status == "parked"
        if got != expected and not (parked and got[1:] == expected[1:]):
            yield Problem(TABLE_PAYMENTS, payment, f"entry {got}, result {expected}")
    for payment in books.entries.keys() - last.keys():
        if books.entries[payment].status != "observed":
            yield Problem(TABLE_PAYMENTS, payment, "an entry without a result")


def table_charges_is_the_fold(books: Books) -> Iterator[Problem]:
    """Check 7; the fold is written here once more on purpose: an audit does not trust the code it audits."""
    money: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, tuple[str, str]] = {}
    for one in books.results:
        user, _, payment_id = one.payment.partition("/")
        counts[user]["replayed" if one.replayed else one.status] += 1
        if one.moved:
            money[user][one.currency, one.action] += one.amount_minor
        if not one.replayed:
            last[user] = payment_id, one.status
    for user in counts.keys() | books.states.keys():
        state = books.states.get(user)
        if state is None:
            yield Problem(TABLE_CHARGES, user, "no state")
            continue
        expected = dict(money[user]), dict(counts[user]), last.get(user)
        got = money_of(state), dict(state["counts"]), _last_of(state)
        if got != expected:
            yield Problem(TABLE_CHARGES, user, f"table {got}, fold of the results {expected}")


def money_is_the_same_everywhere(books: Books) -> Iterator[Problem]:
    """Check 8."""
    for what, action in (("money", "charge"), ("refunded money", "refund")):
        elsewhere, ahead = not_compared(books, action), moved_ahead(books, action)
        for currency, (results, gateway, tables) in money_per_currency(books, action).items():
            at_gateway = gateway - ahead[currency] + elsewhere[currency]
            if results != tables or (books.listed and results != at_gateway):
                detail = f"results {results}, gateway {at_gateway}, tables {tables}"
                yield Problem(f"{what} differs", currency, detail)


def no_charge_gives_back_more_than_it_captured(books: Books) -> Iterator[Problem]:
    """Check 9; a charge whose result is not there is a problem of another check."""
    captured = {row.id: row.amount_minor for row in charged(books)}
    at_gateway: Counter[str] = Counter()
    for row in refunded(books):
        at_gateway[row.charge] += row.amount_minor
    for charge, amount in at_gateway.items():
        if amount > captured.get(charge, amount):
            detail = f"{amount} of {captured[charge]}"
            yield Problem("refunded above the charge at the gateway", charge, detail)
    charges = {one.payment: one for one in books.results if one.moved and one.action == "charge"}
    given_back = given_back_by_charge(books)
    for payment, one in charges.items():
        back, entry = given_back[payment], books.entries.get(payment)
        if back > one.amount_minor:
            yield Problem("refunded above the charge", payment, f"{back} of {one.amount_minor}")
        elif entry is not None and not one.external and entry.refunded_minor != back:
            detail = f"entry: {entry.refunded_minor} refunded, results: {back}"
            yield Problem(TABLE_PAYMENTS, payment, detail)


def _last_of(state: Any) -> tuple[str, str] | None:
    last = state.get("last_payment")
    return None if last is None else (last["payment_id"], last["status"])


def _payment_id(payment: str) -> str:
    return payment.partition("/")[2]


def _at(source: Source | None) -> str:
    return f"payments-{source[0]} offset {source[1]}" if source else "an unknown place"


CHECKS: Final[tuple[Callable[[Books], Iterator[Problem]], ...]] = (
    every_record_is_readable,
    every_event_is_answered_once,
    no_open_payment_is_settled_twice,
    every_result_has_a_metric,
    no_payment_moves_twice,
    every_charge_has_its_result,
    every_refund_has_its_result,
    every_refund_that_failed_had_succeeded,
    table_payments_holds_the_outcomes,
    table_charges_is_the_fold,
    money_is_the_same_everywhere,
    no_charge_gives_back_more_than_it_captured,
)
