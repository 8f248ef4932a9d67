"""An audit's report: what it says holds, in numbers that add up; what is open is no difference."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from support.audit_books import books_with_refunds, charge, good_books, result

from streamsocial_billing.audit.books import Books, Entry, Sent
from streamsocial_billing.audit.checks import problems_of, unsettled
from streamsocial_billing.audit.report import AuditReport, report_of
from streamsocial_billing.audit.showing import report_to
from streamsocial_billing.audit.tally import PARTS, OpenGroup, adds_up, tally
from streamsocial_billing.domain.english import counted

SINCE_MS = 1_764_600_000_000


def open_books() -> Books:
    """One payment more waits for a stopped gateway, one for a person; two events for a worker; one repeat."""
    books = good_books()
    books.handled_to[0] = 8
    open_ones = [("u3/p4", 5, "unknown"), ("u3/p5", 6, "parked")]
    for payment, offset, status in open_ones:
        books.sent[0, offset] = Sent(payment, 500, "USD")
        books.results.append(result(payment, offset, status, reason="gateway_unavailable"))
        books.metrics[payment[3:], status, False] += 1
    books.entries["u3/p4"] = Entry(
        "unknown", 500, "USD", None, reason="gateway_unavailable", last_error="stopped", since=SINCE_MS
    )
    books.entries["u3/p5"] = Entry(
        "parked", 500, "USD", None, reason="found_disagrees", last_error="other amount", since=SINCE_MS + 1
    )
    books.sent[0, 7] = Sent("u3/p4", 500, "USD")
    books.results.append(result("u3/p4", 7, "unknown", replayed=True, reason="gateway_unavailable"))
    books.metrics["p4", "unknown", True] += 1
    last = {"payment_id": "p5", "status": "parked", "at": 1}
    counts = {"unknown": 1, "parked": 1, "replayed": 1}
    books.states["u3"] = {"money": {}, "counts": counts, "last_payment": last}
    books.sent[0, 8], books.sent[0, 9] = Sent("u3/p6", 500, "USD"), Sent(None, 0, "")
    return books


def everything(books: Books) -> list[str]:
    """The kinds of all problems."""
    return [one.kind for one in (*problems_of(books), *adds_up(books))]


def audited(books: Books, unread: str | None = None) -> AuditReport:
    """The report of these books."""
    return report_of(books, [*problems_of(books), *adds_up(books)], unread=unread)


def text_of(report: AuditReport) -> str:
    """What the command prints."""
    out = io.StringIO()
    report_to(report, out, as_json=False)
    return out.getvalue()


def json_of(report: AuditReport) -> Any:
    """What the command prints with --json."""
    out = io.StringIO()
    report_to(report, out, as_json=True)
    return orjson.loads(out.getvalue())


def test_each_event_is_in_one_part_and_the_parts_are_what_was_sent() -> None:
    """Charged twice (one settled), declined, re-sent final and open, a dead letter, open, not handled."""
    found = tally(open_books())
    assert found == {
        "sent": 10, "charged": 2, "refunded": 0, "declined": 1, "failed": 0, "rejected": 0, "open": 2,
        "repeats": 2, "dead_letters": 1, "waiting": 2, "unknown": 1, "parked": 1,
        "dead_letters_elsewhere": 0, "external": 0,
    }  # fmt: skip
    assert found["sent"] == sum(found[name] for name in PARTS)


def test_open_is_open_not_wrong() -> None:
    """A stopped gateway, a parked payment, a backlog: no difference, though a system at rest has none."""
    report = audited(open_books())
    assert ((), True, False) == (report.problems, report.ok, report.settled)
    assert 4 == len(list(unsettled(open_books())))
    assert [] == list(unsettled(good_books()))
    assert (
        OpenGroup("simulated", "parked", "found_disagrees", 1, SINCE_MS + 1),
        OpenGroup("simulated", "unknown", "gateway_unavailable: stopped", 1, SINCE_MS),
    ) == report.open_payments


def test_money_that_the_gateway_moved_for_an_open_payment_is_no_difference() -> None:
    """The answer was lost, or its unit is not committed: the charge is there, the result will follow."""
    books = open_books()
    books.ledger += [charge("u3/p4"), charge("u3/p6")]
    report = audited(books)
    assert ((), {"USD": 1000}) == (report.problems, report.ahead["charge"])
    assert {"USD": (1000, 2000, 1000)} == report.money
    books.ledger.append(charge("u3/p4", id="ch_second"))
    assert "charged twice at the gateway" in everything(books)


def test_an_event_that_a_worker_has_passed_without_an_answer_is_lost() -> None:
    """Only from the committed offset on may an answer still come."""
    books = open_books()
    books.handled_to[0] = 9
    assert ["lost event", "figures do not add up"] == everything(books)


def double_result(books: Books) -> None:
    books.results.append(result("u1/p1", 0, replayed=True))


def settled_twice(books: Books) -> None:
    books.results.append(result("u2/p3", 3, resolves=True))


def double_dead_letter(books: Books) -> None:
    books.dead[0, 4] += 1


def lost_event(books: Books) -> None:
    books.sent[0, 5] = Sent("u9/p9", 500, "USD")


@pytest.mark.parametrize("plant", [double_result, settled_twice, double_dead_letter, lost_event])
def test_figures_that_do_not_add_up_are_a_difference(plant: Callable[[Books], None]) -> None:
    """The report checks its own table, and says so beside it."""
    books = good_books()
    plant(books)
    assert "figures do not add up" in everything(books)
    text = text_of(audited(books))
    assert "were sent" in text and "exactly once" not in text


def test_events_that_are_gone_from_the_log_count_as_sent() -> None:
    """`charge-results` is kept longer than `payments`: their answers are there."""
    books = good_books()
    books.log_start[0] = 1
    del books.sent[0, 0]
    assert (5, 4) == (tally(books)["sent"], audited(books).events)
    assert [] == everything(books)


def test_a_report_leads_with_what_holds() -> None:
    """Each outcome with its number: nothing is said of a decline but that it is one."""
    first = text_of(audited(good_books())).splitlines()[0]
    assert first == (
        "nothing differs: 2 charges, each exactly once at the gateway; 1 declined; 1 repeat; 1 dead letter"
    )
    first = text_of(audited(books_with_refunds())).splitlines()[0]
    assert first == "nothing differs: 1 charge, 1 refund, each exactly once at the gateway"


def test_a_report_leads_with_what_is_open() -> None:
    """How many, since when, at which gateway, why."""
    lines = text_of(audited(open_books())).splitlines()
    oldest = "the oldest since 2025-12-01T14:40:00Z"
    assert lines[0].startswith("nothing differs: 2 payments are open; 2 events wait for a worker; 2 charges")
    assert lines[1:3] == [
        f"  open: 1 parked at simulated (found_disagrees), {oldest}",
        f"  open: 1 unknown at simulated (gateway_unavailable: stopped), {oldest}",
    ]


def test_a_report_leads_with_what_differs() -> None:
    """Then comes what is open; that something holds is not said."""
    books = open_books()
    del books.entries["u2/p2"]
    lines = text_of(audited(books)).splitlines()
    assert "1 difference found:" == lines[0]
    assert lines[1].startswith("  payments changelog fold differs: u2/p2: ")
    assert lines[2].startswith("  open: 1 parked")
    assert "nothing differs" not in "".join(lines)


def test_a_gateway_that_cannot_be_read_is_said_first() -> None:
    """All else is compared and shown; the exit code is not that of a comparison that was made."""
    books = good_books()
    books.listed, books.ledger = frozenset(), []
    report = audited(books, unread="the gateway at http://x does not answer")
    assert ((), False) == (report.problems, report.ok)
    lines = text_of(report).splitlines()
    assert "not compared with the gateway: the gateway at http://x does not answer" == lines[0]
    assert not [line for line in lines if "gateway" in line and "currency" in line]


def test_without_a_simulated_gateway_its_side_is_left_out() -> None:
    """Real gateways are compared by `reconcile`."""
    books = good_books()
    books.listed, books.ledger = frozenset(), []
    report = audited(books)
    assert report.ok
    lines = text_of(report).splitlines()
    assert lines[0].startswith("nothing differs: 2 charges, not compared with any gateway; 1 declined")
    assert lines[1] == (
        "  BILLING_GATEWAY_URL is not set, so no simulated gateway was read; "
        "`reconcile` compares with real gateways"
    )
    del books.states["u1"]
    assert {"charges changelog fold differs", "money differs"} == set(everything(books))


def test_charges_at_another_gateway_are_not_looked_for_in_the_simulated_one() -> None:
    """Their money is shown apart."""
    books = good_books()
    books.results = [
        one._replace(gateway="stripe") if one.payment == "u1/p1" else one for one in books.results
    ]
    books.ledger = [one for one in books.ledger if one.payment != "u1/p1"]
    report = audited(books)
    assert ((), {"USD": 500}) == (report.problems, report.not_compared["charge"])
    assert "2 charges, those at simulated each exactly once there" in text_of(report)


def test_a_lag_is_said_as_an_upper_bound_beside_the_events_that_wait() -> None:
    """It counts offsets, markers of transactions among them: `8 offsets` of 4 events read as two figures."""
    books = open_books()
    report = report_of(books, [*problems_of(books), *adds_up(books)], {"payments": 8, "payments-retry": 1})
    lines = text_of(report).splitlines()
    assert "  not handled yet: up to 8 records of payments" in lines
    assert "  not handled yet: up to 1 record of payments-retry" in lines


def test_a_gateway_that_was_not_read_is_not_called_read() -> None:
    """What stands under the line that it does not answer is a sentence: nothing was compared."""
    books = good_books()
    books.listed, books.ledger = frozenset(), []
    lines = text_of(audited(books, unread="the gateway at http://x does not answer")).splitlines()
    assert "  no gateway was read; `reconcile` compares with real gateways" in lines


def test_dead_letters_of_other_topics_are_counted_apart() -> None:
    """Under the names of the live audit."""
    books = good_books()
    books.dead_elsewhere = 2
    found = json_of(audited(books))
    assert (1, 2) == (found["dead_letters"], found["dead_letters_elsewhere"])
    assert (1, 2) == tuple(found["outcomes"][name] for name in ("dead_letters", "dead_letters_elsewhere"))


def test_the_json_has_what_the_text_has() -> None:
    """`ok`: nothing differs; `settled`: nothing is open either."""
    found = json_of(audited(open_books()))
    assert (True, False, 2, 10) == (found["ok"], found["settled"], found["open"], found["outcomes"]["sent"])
    expected = {
        "gateway": "simulated", "status": "unknown", "why": "gateway_unavailable: stopped", "payments": 1,
        "since": SINCE_MS,
    }  # fmt: skip
    assert expected == found["open_payments"][1]


@pytest.mark.parametrize(("number", "text"), [(0, "0 charges"), (1, "1 charge"), (1800, "1,800 charges")])
def test_a_number_has_the_right_form_of_its_word(number: int, text: str) -> None:
    """One is singular."""
    assert text == counted(number, "charge")
