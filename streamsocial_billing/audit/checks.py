"""What must be true of the books.

1. Every event has exactly one result with resolves=false, or exactly one dead letter, about the same payment.
2. Every result that is open and no replay has exactly one final record with resolves=true; none has one else.
3. Every result has one metric.
4. No payment succeeded twice, none has two final outcomes, none has two charges at the gateway.
5. Every succeeded result has its charge at the gateway with the same amount, every charge has its result.
6. The table `payments` holds the last outcome of each payment.
7. The table `charges` is the fold of each user's results.
8. Money per currency is the same in results, ledger, tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from streamsocial_billing.audit.books import FINAL, NOT_STORED, Books, LedgerCharge, Result, Source
from streamsocial_billing.events import gateway_key_of

TABLE_PAYMENTS: Final = "payments changelog fold differs"
TABLE_CHARGES: Final = "charges changelog fold differs"


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
    for source, sent in books.sent.items():
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


def every_open_payment_is_settled_once(books: Books) -> Iterator[Problem]:
    """Check 2."""
    opened = {(one.payment, one.source) for one in books.results if one.opens}
    settled = Counter((one.payment, one.source) for one in books.results if one.resolves)
    for payment, source in opened:
        count = settled[payment, source]
        if count == 0:
            yield Problem("open payment without a final record", payment, f"unsettled event at {_at(source)}")
        elif count > 1:
            yield Problem("settled twice", payment, f"{count} records with resolves=true")
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


def no_payment_is_charged_twice(books: Books) -> Iterator[Problem]:
    """Check 4."""
    finals: dict[str, list[str]] = defaultdict(list)
    for one in books.results:
        if one.status in FINAL and not one.replayed and one.reason not in NOT_STORED:
            finals[one.payment].append(one.status)
    for payment, statuses in finals.items():
        if statuses.count("succeeded") > 1:
            yield Problem("charged twice in the results", payment, ", ".join(statuses))
        elif len(statuses) > 1:
            yield Problem("two final outcomes", payment, ", ".join(statuses))
    charges: dict[str, list[str]] = defaultdict(list)
    for charge in _charged(books):
        charges[charge.payment].append(charge.id)
    for payment, ids in charges.items():
        if len(ids) > 1:
            yield Problem("charged twice at the gateway", payment, ", ".join(ids))


def every_charge_has_its_result(books: Books) -> Iterator[Problem]:
    """Check 5; found by the gateway key, which is a function of the payment."""
    succeeded = {_key(one.payment): one for one in books.results if one.moved and one.action == "charge"}
    charges = {charge.ref: charge for charge in _charged(books)}
    for charge in _charged(books):
        result = succeeded.get(charge.ref or "")
        about = f"{charge.payment} ({charge.id})"
        if result is None:
            yield Problem("charge without result", about, f"{charge.amount_minor} {charge.currency} moved")
        elif (charge.amount_minor, charge.currency) != (result.amount_minor, result.currency):
            detail = f"gateway {charge.amount_minor} {charge.currency}, "
            detail += f"result {result.amount_minor} {result.currency}"
            yield Problem("amount differs", about, detail)
        elif charges[charge.ref] is charge and charge.id != result.gateway_ref:
            yield Problem("gateway reference differs", about, f"result: {result.gateway_ref}")
    for key in succeeded.keys() - charges.keys():
        one = succeeded[key]
        yield Problem("result without charge", one.payment, f"{one.amount_minor} {one.currency} not charged")


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
        expected = one.status, one.amount_minor, one.currency, one.gateway_ref
        parked = one.status == "unknown" and entry.status == "parked"
        if entry != expected and not (parked and entry[1:] == expected[1:]):
            yield Problem(TABLE_PAYMENTS, payment, f"entry {tuple(entry)}, result {expected}")
    for payment in books.entries.keys() - last.keys():
        if books.entries[payment].status != "observed":
            yield Problem(TABLE_PAYMENTS, payment, "an entry without a result")


def table_charges_is_the_fold(books: Books) -> Iterator[Problem]:
    """Check 7; the fold is written here once more on purpose: an audit does not trust the code it audits."""
    money: dict[str, Counter[str]] = defaultdict(Counter)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, tuple[str, str]] = {}
    for one in books.results:
        user, _, payment_id = one.payment.partition("/")
        counts[user]["replayed" if one.replayed else one.status] += 1
        if one.moved and one.action == "charge":
            money[user][one.currency] += one.amount_minor
        if not one.replayed:
            last[user] = payment_id, one.status
    for user in counts.keys() | books.states.keys():
        state = books.states.get(user)
        if state is None:
            yield Problem(TABLE_CHARGES, user, "no state")
            continue
        expected = dict(money[user]), dict(counts[user]), last.get(user)
        got = _charged_by_currency(state), dict(state["counts"]), _last_of(state)
        if got != expected:
            yield Problem(TABLE_CHARGES, user, f"table {got}, fold of the results {expected}")


def money_is_the_same_everywhere(books: Books) -> Iterator[Problem]:
    """Check 8."""
    for currency, (results, gateway, tables) in money_per_currency(books).items():
        if not results == gateway == tables:
            detail = f"results {results}, gateway {gateway}, tables {tables}"
            yield Problem("money differs", currency, detail)


def money_per_currency(books: Books) -> dict[str, tuple[int, int, int]]:
    """Minor units charged by results, by the gateway's ledger, by the tables."""
    sides: tuple[Counter[str], Counter[str], Counter[str]] = Counter(), Counter(), Counter()
    for one in books.results:
        if one.moved and one.action == "charge":
            sides[0][one.currency] += one.amount_minor
    for charge in _charged(books):
        sides[1][charge.currency] += charge.amount_minor
    for state in books.states.values():
        sides[2].update(_charged_by_currency(state))
    currencies = sorted({currency for side in sides for currency in side})
    return {one: (sides[0][one], sides[1][one], sides[2][one]) for one in currencies}


def _charged(books: Books) -> Iterator[LedgerCharge]:
    return (charge for charge in books.ledger if charge.status == "succeeded")


def _charged_by_currency(state: Any) -> dict[str, int]:
    charged = {currency: one["charged_minor"] for currency, one in state["money"].items()}
    return {currency: amount for currency, amount in charged.items() if amount}


def _last_of(state: Any) -> tuple[str, str] | None:
    last = state.get("last_payment")
    return None if last is None else (last["payment_id"], last["status"])


def _key(payment: str) -> str:
    user_id, _, payment_id = payment.partition("/")
    return gateway_key_of(user_id, "charge", payment_id)


def _payment_id(payment: str) -> str:
    return payment.partition("/")[2]


def _at(source: Source | None) -> str:
    return f"payments-{source[0]} offset {source[1]}" if source else "an unknown place"


CHECKS: Final[tuple[Callable[[Books], Iterator[Problem]], ...]] = (
    every_record_is_readable,
    every_event_is_answered_once,
    every_open_payment_is_settled_once,
    every_result_has_a_metric,
    no_payment_is_charged_twice,
    every_charge_has_its_result,
    table_payments_holds_the_outcomes,
    table_charges_is_the_fold,
    money_is_the_same_everywhere,
)
