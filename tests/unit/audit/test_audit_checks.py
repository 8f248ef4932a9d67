"""Every kind of problem in the books is named by the audit's checks."""

from __future__ import annotations

import io
from collections.abc import Callable

import orjson
import pytest
from support.audit_books import books_with_refunds, charge, good_books, refund, result
from support.charge_states import after

from streamsocial_billing.audit.books import Books, Entry, Sent, changelog_key
from streamsocial_billing.audit.checks import Problem, problems_of
from streamsocial_billing.audit.money import money_per_currency
from streamsocial_billing.audit.report import MAX_PROBLEMS, AuditReport, report_of
from streamsocial_billing.audit.showing import report_to
from streamsocial_billing.domain.money import shown_amount


def test_good_books_with_refunds_have_no_problem() -> None:
    """Ours by reference, the gateway's by its id; disputes are known from what it told alone."""
    books = books_with_refunds()

    assert [] == list(problems_of(books))
    assert {"USD": (350, 350, 350)} == money_per_currency(books, "refund")
    assert {"USD": (550, 550, 550)} == money_per_currency(books)


def books_with_a_failed_refund() -> Books:
    """The same; then the refund of 200 failed."""
    books = books_with_refunds()
    books.results.append(result(
        "u1/x1_f", 0, amount_minor=200, gateway_ref="re_u1/r1", reason="refund_failed", refund_of="p1",
        action="charge", external=True, source=None,
    ))  # fmt: skip
    books.refunds[0] = refund("u1/r1", 200, status="failed")
    one = books.results[-1]
    books.metrics["x1_f", one.status, False] += 1
    books.states["u1"] = after(
        books.states["u1"], status=one.status, amount_minor=200, payment_id="x1_f"
    )
    books.entries["u1/x1_f"] = Entry(one.status, 200, "USD", one.gateway_ref)
    books.entries["u1/p1"] = books.entries["u1/p1"]._replace(refunded_minor=100)
    return books


def test_good_books_with_a_refund_that_failed_have_no_problem() -> None:
    """It succeeded, then it failed: at the gateway nothing moved."""
    books = books_with_a_failed_refund()

    assert [] == list(problems_of(books))
    assert {"USD": (350, 350, 350)} == money_per_currency(books, "refund")
    assert {"USD": (750, 750, 750)} == money_per_currency(books)


def refund_not_failed_there(books: Books) -> None:
    books.refunds[0] = refund("u1/r1", 200)


def refund_not_there_at_all(books: Books) -> None:
    del books.refunds[0]


def failure_not_told(books: Books) -> None:
    del books.results[-1]


def failure_without_refund(books: Books) -> None:
    del books.results[1]


def failure_of_another_amount(books: Books) -> None:
    books.results[-1] = books.results[-1]._replace(amount_minor=199)


def failure_without_room(books: Books) -> None:
    books.entries["u1/p1"] = books.entries["u1/p1"]._replace(refunded_minor=300)


@pytest.mark.parametrize(
    ("plant", "kind", "about"),
    [
        (refund_not_failed_there, "failure without its refund's failure", "u1/x1_f"),
        (refund_not_failed_there, "money differs", "USD"),
        (refund_not_there_at_all, "failure without its refund's failure", "u1/x1_f"),
        (failure_not_told, "result without refund", "u1/r1"),
        (failure_without_refund, "failure without refund", "u1/x1_f"),
        (failure_of_another_amount, "amount differs", "u1/x1_f"),
        (failure_without_room, "payments changelog fold differs", "u1/p1"),
    ],
)
def test_a_planted_problem_of_a_failed_refund_is_named(
    plant: Callable[[Books], None], kind: str, about: str
) -> None:
    """Neither side is believed without the other."""
    books = books_with_a_failed_refund()

    plant(books)

    assert [] != [one for one in problems_of(books) if one.kind == kind and about in one.about]


def test_good_books_have_no_problem() -> None:
    """Replays, declines, settled unknowns, dead letters: all of that is as it must be."""
    assert [] == list(problems_of(good_books()))


def lost_event(books: Books) -> None:
    books.sent[0, 5] = Sent("u9/p9", 500, "USD")


def double_result(books: Books) -> None:
    books.results.append(result("u1/p1", 0, replayed=True))


def dead_letter_too(books: Books) -> None:
    books.dead[0, 2] += 1


def double_dead_letter(books: Books) -> None:
    books.dead[0, 4] += 1


def result_from_nowhere(books: Books) -> None:
    books.results.append(result("u1/p1", 77, replayed=True))


def stranger(books: Books) -> None:
    books.strangers.append("charge-results-0 offset 3")


def garbage(books: Books) -> None:
    books.unreadable.append("charge-results-0 offset 3")


def result_of_another(books: Books) -> None:
    books.sent[0, 2] = Sent("u2/p2", 501, "USD")


def settled_twice(books: Books) -> None:
    books.results.append(result("u2/p3", 3, resolves=True))


def settled_for_nothing(books: Books) -> None:
    books.results.append(result("u2/p2", 2, "declined", resolves=True))


def settled_but_open(books: Books) -> None:
    books.results[4] = result("u2/p3", 3, "parked", resolves=True)


def missing_metric(books: Books) -> None:
    books.metrics["p2", "declined", False] -= 1


def surplus_metric(books: Books) -> None:
    books.metrics["p2", "declined", False] += 1


def succeeded_twice(books: Books) -> None:
    books.results[1] = result("u1/p1", 1)


def declined_then_failed(books: Books) -> None:
    books.sent[0, 5] = Sent("u2/p2", 500, "USD")
    books.results.append(result("u2/p2", 5, "failed"))


def charged_twice(books: Books) -> None:
    books.ledger.append(charge("u1/p1", id="ch_second"))


def charged_after_a_decline(books: Books) -> None:
    books.ledger.append(charge("u2/p2"))


def nothing_charged(books: Books) -> None:
    del books.ledger[0]


def other_amount(books: Books) -> None:
    books.ledger[0] = charge("u1/p1", amount_minor=50_000)


def other_reference(books: Books) -> None:
    books.ledger[0] = charge("u1/p1", id="ch_other")


def entry_lost(books: Books) -> None:
    del books.entries["u2/p2"]


def entry_still_open(books: Books) -> None:
    books.entries["u2/p3"] = Entry("unknown", 500, "USD", None)


def entry_from_nowhere(books: Books) -> None:
    books.entries["u8/p8"] = Entry("succeeded", 500, "USD", "ch_8")


def state_lost(books: Books) -> None:
    del books.states["u2"]


def state_charged_twice(books: Books) -> None:
    money = {"USD": {"charged_minor": 1000, "refunded_minor": 0}}
    books.states["u1"] = {**books.states["u1"], "money": money}


def state_without_the_replay(books: Books) -> None:
    books.states["u1"] = {**books.states["u1"], "counts": {"succeeded": 1}}


def state_with_an_older_last_payment(books: Books) -> None:
    last = {"payment_id": "p2", "status": "declined", "at": 1}
    books.states["u2"] = {**books.states["u2"], "last_payment": last}


PLANTED = [
    (lost_event, "lost event", "u9/p9"),
    (double_result, "double result", "u1/p1"),
    (dead_letter_too, "result and dead letter", "u2/p2"),
    (double_dead_letter, "double dead letter", "offset 4"),
    (result_from_nowhere, "result without event", "offset 77"),
    (stranger, "result without event", "charge-results-0 offset 3"),
    (garbage, "unreadable record", "charge-results-0 offset 3"),
    (result_of_another, "result differs from its event", "u2/p2"),
    (settled_twice, "settled twice", "u2/p3"),
    (settled_for_nothing, "settled without being open", "u2/p2"),
    (settled_but_open, "settling record is not final", "u2/p3"),
    (missing_metric, "missing metric", "p2"),
    (surplus_metric, "metric without result", "p2"),
    (succeeded_twice, "charged twice in the results", "u1/p1"),
    (declined_then_failed, "two final outcomes", "u2/p2"),
    (charged_twice, "charged twice at the gateway", "u1/p1"),
    (charged_after_a_decline, "charge without result", "u2/p2"),
    (nothing_charged, "result without charge", "u1/p1"),
    (other_amount, "amount differs", "u1/p1"),
    (other_amount, "money differs", "USD"),
    (other_reference, "gateway reference differs", "u1/p1"),
    (entry_lost, "payments changelog fold differs", "u2/p2"),
    (entry_still_open, "payments changelog fold differs", "u2/p3"),
    (entry_from_nowhere, "payments changelog fold differs", "u8/p8"),
    (state_lost, "charges changelog fold differs", "u2"),
    (state_charged_twice, "charges changelog fold differs", "u1"),
    (state_without_the_replay, "charges changelog fold differs", "u1"),
    (state_with_an_older_last_payment, "charges changelog fold differs", "u2"),
]


@pytest.mark.parametrize(("plant", "kind", "about"), PLANTED, ids=[one[0].__name__ for one in PLANTED])
def test_a_planted_problem_is_named(plant: Callable[[Books], None], kind: str, about: str) -> None:
    """The report says what is wrong, with the payment or place it is wrong about."""
    books = good_books()

    plant(books)

    assert [] != [one for one in problems_of(books) if one.kind == kind and about in one.about]


def refund_unknown_to_us(books: Books) -> None:
    books.refunds.append(refund("u1/r2", 10))


def refund_at_the_gateway_not_told(books: Books) -> None:
    books.refunds.append(refund("u1/x1_b", 10, ref=False))


def refund_not_made(books: Books) -> None:
    del books.refunds[0]


def told_refund_not_made(books: Books) -> None:
    del books.refunds[1]


def refunded_twice_there(books: Books) -> None:
    books.refunds.append(refund("u1/r1", 200, id="re_second"))


def refunded_twice_here(books: Books) -> None:
    books.results.append(books.results[1])


def refund_of_another_amount(books: Books) -> None:
    books.refunds[0] = refund("u1/r1", 201)


def refunded_above_the_charge(books: Books) -> None:
    books.results[1] = books.results[1]._replace(amount_minor=401)


def refunded_above_the_charge_there(books: Books) -> None:
    books.refunds[0] = refund("u1/r1", 401)


def entry_with_another_refunded_sum(books: Books) -> None:
    books.entries["u1/p1"] = books.entries["u1/p1"]._replace(refunded_minor=200)


def state_with_another_refunded_sum(books: Books) -> None:
    money = {"USD": {"charged_minor": 550, "refunded_minor": 349}}
    books.states["u1"] = {**books.states["u1"], "money": money}


PLANTED_REFUNDS = [
    (refund_unknown_to_us, "refund without result", "u1/r2"),
    (refund_at_the_gateway_not_told, "refund without result", "u1/x1_b"),
    (refund_not_made, "result without refund", "u1/r1"),
    (told_refund_not_made, "result without refund", "u1/x1_a"),
    (refunded_twice_there, "refunded twice at the gateway", "u1/r1"),
    (refunded_twice_here, "refunded twice in the results", "u1/r1"),
    (refund_of_another_amount, "amount differs", "u1/r1"),
    (refund_of_another_amount, "refunded money differs", "USD"),
    (refunded_above_the_charge, "refunded above the charge", "u1/p1"),
    (refunded_above_the_charge_there, "refunded above the charge at the gateway", "ch_u1/p1"),
    (entry_with_another_refunded_sum, "payments changelog fold differs", "u1/p1"),
    (state_with_another_refunded_sum, "charges changelog fold differs", "u1"),
    (state_with_another_refunded_sum, "refunded money differs", "USD"),
]


@pytest.mark.parametrize(
    ("plant", "kind", "about"), PLANTED_REFUNDS, ids=[one[0].__name__ for one in PLANTED_REFUNDS]
)
def test_a_planted_problem_of_refunds_is_named(
    plant: Callable[[Books], None], kind: str, about: str
) -> None:
    """As of charges."""
    books = books_with_refunds()

    plant(books)

    assert [] != [one for one in problems_of(books) if one.kind == kind and about in one.about]


def test_a_result_whose_event_is_gone_by_retention_is_no_problem() -> None:
    """`charge-results` is kept longer than `payments`."""
    books = good_books()
    books.log_start[0] = 1
    del books.sent[0, 0]

    assert [] == list(problems_of(books))


def test_a_parked_entry_of_an_unknown_result_is_the_same_outcome() -> None:
    """Going from unknown to parked emits no result."""
    books = good_books()
    books.results = [one for one in books.results if not one.resolves]
    books.entries["u2/p3"] = Entry("parked", 500, "USD", None)

    assert "payments changelog fold differs" not in {one.kind for one in problems_of(books)}


def test_a_rejection_that_is_not_stored_leaves_no_entry() -> None:
    """A mismatch may come any number of times beside the payment's own outcome."""
    books = good_books()
    books.sent[0, 5] = Sent("u1/p1", 500, "USD")
    books.results.append(result("u1/p1", 5, "rejected", reason="idempotency_mismatch"))

    kinds = {one.kind for one in problems_of(books)}

    assert {"missing metric", "charges changelog fold differs"} == kinds


def test_money_is_summed_for_each_side() -> None:
    """Results, ledger, tables: 2 charges of 5.00 USD."""
    assert {"USD": (1000, 1000, 1000)} == money_per_currency(good_books())


def test_the_report_counts_all_problems_but_lists_a_bounded_number() -> None:
    """A million problems are no reason to print a million lines."""
    found = [Problem("lost event", str(number), "") for number in range(MAX_PROBLEMS + 7)]

    report = report_of(good_books(), found)

    assert (MAX_PROBLEMS, MAX_PROBLEMS + 7, False) == (len(report.problems), report.problem_total, report.ok)


def shown(report: AuditReport, *, as_json: bool) -> str:
    """What the command prints."""
    out = io.StringIO()
    report_to(report, out, as_json=as_json)
    return out.getvalue()


def test_the_report_as_json_has_every_number() -> None:
    """A script reads it."""
    data = orjson.loads(shown(report_of(good_books(), []), as_json=True))

    assert (True, 5, 3, 1, 1) == tuple(
        data[name] for name in ("ok", "events", "payments", "resent", "unreadable_events")
    )
    assert {"declined": [1, 0, 0], "succeeded": [1, 1, 1], "unknown": [1, 0, 0]} == data["results"]


@pytest.mark.parametrize(("key", "text"), [(b'"u1"', "u1"), (b"u1", "u1"), (b'"u1/p1"', "u1/p1"), (None, "")])
def test_a_table_key_is_read_with_or_without_json_quotes(key: bytes | None, text: str) -> None:
    """Faust's key serializer is a choice of the table."""
    assert text == changelog_key(key)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(123456, "USD", "1,234.56"), (1234, "JPY", "1,234"), (1005, "KWD", "1.005"), (-5, "EUR", "-0.05")],
)
def test_money_is_shown_in_major_units(amount: int, currency: str, text: str) -> None:
    """The exponent of the currency decides."""
    assert text == shown_amount(amount, currency)
