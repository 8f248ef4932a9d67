"""The live audit: what it compares, what it says when a side is wrong."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import yaml
from msgspec import to_builtins
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from support.asked_gateway import AskedGateway
from support.one_task import START_MS, OneTask

from streamsocial_billing.audit.live import INVARIANTS, Break, Rows, breaks_of_counters, breaks_of_rows
from streamsocial_billing.audit.watching import ROUND_EVERY_MS, ROWS_PER_LOOK, LiveAudit, as_json
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.payments.record_outcome import Answer
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.settings import COMMANDS, PAYMENTS
from streamsocial_billing.web.audit import AuditMetrics, summary
from tables.charges import ChargeState, Money

ROOT = Path(__file__).resolve().parents[3]
GOOD = {
    "events/payments": 7, "first_results/payments": 6, "dead_letters/payments": 1, "events/payments-retry": 9,
    "opened": 3, "final_results": 1, "charged/EUR": 700, "charged/JPY": 5, "refunded/EUR": 200,
    "outcomes/charged": 2, "outcomes/refunded": 1, "outcomes/repeats": 1,
}  # fmt: skip


READABLE = b'{"user_id":"u1","counts":{"succeeded":2},"money":{},"last_payment":null,"of_a_newer_release":1}'


def rows() -> Rows:
    """What agrees with GOOD."""
    by_status = Counter(succeeded=3, replayed=1, unknown=2, parked=1)
    return Rows(
        2, 7, by_status, Counter(unknown=1, parked=1), Counter(EUR=700, JPY=5), Counter(EUR=200)
    )  # fmt: skip


def test_books_that_agree_have_no_break() -> None:
    """Replays, triggers, dead letters of other topics among them."""
    numbers = GOOD | {"dead_letters/payments-retry": 4}
    assert [] == [*breaks_of_counters(numbers, "payments"), *breaks_of_rows(numbers, rows(), "payments")]


MUTATED: list[tuple[dict[str, int], dict[str, Any], list[Break]]] = [
    ({"events/payments": 8}, {}, [Break("answered", "", 8, 7)]),
    ({"dead_letters/payments": 2}, {}, [Break("answered", "", 7, 8)]),
    ({"opened": 4}, {}, [Break("outcomes", "", 6, 7), Break("open", "", 3, 2)]),
    ({"outcomes/declined": 1}, {}, [Break("outcomes", "", 6, 7), Break("outcomes", "declined", 1, 0)]),
    ({}, {"by_status": Counter(succeeded=2, failed=1, replayed=1, unknown=2, parked=1)},
     [Break("outcomes", "succeeded", 3, 2), Break("outcomes", "failed", 0, 1)]),
    ({}, {"open": Counter(parked=1)}, [Break("open", "", 2, 1)]),
    ({}, {"results": 8}, [Break("results", "", 7, 8)]),
    ({"charged/EUR": 701}, {}, [Break("charged", "EUR", 701, 700)]),
    ({"charged/USD": 1}, {}, [Break("charged", "USD", 1, 0)]),
    ({}, {"charged": Counter(EUR=700)}, [Break("charged", "JPY", 5, 0)]),
    ({}, {"charged": Counter(EUR=700, JPY=5, KWD=9)}, [Break("charged", "KWD", 0, 9)]),
    ({"refunded/EUR": 0}, {}, [Break("refunded", "EUR", 0, 200)]),
    ({}, {"refunded": Counter(EUR=199)}, [Break("refunded", "EUR", 200, 199)]),
    ({}, {"unreadable": 1}, [Break("readable", "", 0, 1)]),
]


@pytest.mark.parametrize(("numbers", "sides", "expected"), MUTATED)
def test_each_invariant_names_the_side_that_was_changed(
    numbers: dict[str, int], sides: dict[str, Any], expected: list[Break]
) -> None:
    """One figure changed on one side: it is named with both figures, wherever something disagrees with it."""
    found, counted = rows(), GOOD | numbers
    for name, value in sides.items():
        setattr(found, name, value)
    assert expected == [*breaks_of_counters(counted, "payments"), *breaks_of_rows(counted, found, "payments")]


def test_every_invariant_has_a_side_that_breaks_it() -> None:
    """None is there for show."""
    assert set(INVARIANTS) == {one.invariant for _, _, expected in MUTATED for one in expected}


@pytest.mark.parametrize("value", [b"", b"[]", b"7", b"{}", b'{"counts":{},"money":{"EUR":7}}', b"\xff"])
def test_a_row_that_cannot_be_read_is_counted_not_raised(value: bytes) -> None:
    """The audit goes on with the next row."""
    found = Rows()
    found.add_charges([value, READABLE])
    assert (1, 2, 1) == (found.unreadable, found.results, found.users)


def payment(
    user_id: str, payment_id: str, amount_minor: int = 999, currency: str = "EUR"
) -> PaymentEvent:  # fmt: skip
    """A charge requested when the lab's time begins."""
    return PaymentEvent(
        payment_id=payment_id, user_id=user_id, product="subscription", amount_minor=amount_minor,
        currency=currency, payment_method="pm_card_visa", gateway="simulated", requested_at=START_MS,
    )  # fmt: skip


class Lab:
    """One task with its live audit."""

    def __init__(self, lab: OneTask) -> None:
        self.lab = lab
        counters: Any = lab.app.tables["task_counters"]
        self.live = LiveAudit(lab.layer, counters, lab.settings.topic(PAYMENTS))
        self._waited_ms = 0

    def look(self, times: int = 3) -> Any:
        """Look, each time as if a round were over; what is known of the task."""
        for _ in range(times):
            self._waited_ms += ROUND_EVERY_MS
            self.lab.loop.run_until_complete(self.live.run_once(START_MS + self._waited_ms))
        (checked,) = self.live.tasks()
        return checked

    def breaks(self) -> list[str]:
        """The invariants that do not hold."""
        return [one.invariant for one in self.look().breaks]

    @property
    def numbers(self) -> dict[str, int]:
        """The committed counters."""
        return dict(self.look().numbers)


@pytest.fixture
def audited(gateway: AskedGateway) -> Iterator[Lab]:
    with OneTask(gateway) as lab:
        yield Lab(lab)


def test_a_task_counts_what_came_in_and_what_came_of_it(audited: Lab) -> None:
    """Charges, a replay, a rejection, bad input, an event without a key, a trigger, a bad command."""
    lab = audited.lab
    first = payment("u1", "p1", amount_minor=300, currency="EUR")
    lab.send(first, first, payment("u2", "p1", amount_minor=50, currency="JPY"))
    lab.send(payment("u1", "p1", amount_minor=301, currency="EUR"))
    lab.append(PAYMENTS, None, b"no json")
    lab.append(PAYMENTS, b"u1", None)
    lab.append(COMMANDS, b"u1", b"{}")
    lab.trigger("u1", "p1")

    expected = {
        "events/payments": 6, "first_results/payments": 4, "dead_letters/payments": 2,
        "events/payments-retry": 1, "events/billing-commands": 1, "dead_letters/billing-commands": 1,
        "charged/EUR": 300, "charged/JPY": 50,
        "outcomes/charged": 2, "outcomes/rejected": 1, "outcomes/repeats": 1,
    }  # fmt: skip
    assert expected == audited.numbers
    assert [] == audited.breaks()


def test_an_open_payment_is_counted_until_it_is_settled(audited: Lab, gateway: AskedGateway) -> None:
    """Unknown, asked for again by a re-sent event, then settled by a trigger: money counts once."""
    lab = audited.lab
    event = payment("u1", "p1", amount_minor=300, currency="EUR")
    gateway.script.append(RuntimeError("an answer that nobody understands"))
    lab.send(event, event)
    opened = audited.look()
    assert ({"unknown": 1}, 1, 0) == (dict(opened.rows.open), opened.numbers["opened"], len(opened.breaks))

    lab.wait(60)
    lab.look()
    settled = audited.look()
    numbers = settled.numbers
    assert ({}, 1, 1) == (dict(settled.rows.open), numbers["opened"], numbers["final_results"])
    assert (300, ()) == (numbers["charged/EUR"], settled.breaks)


def test_a_crash_leaves_the_numbers_of_what_was_committed(audited: Lab) -> None:
    """The next task epoch goes on from the record of the last commit."""
    lab = audited.lab
    lab.send(payment("u1", "p1", amount_minor=300, currency="EUR"))
    lab.crash()
    lab.send(payment("u1", "p2", amount_minor=200, currency="EUR"))
    assert (500, 2) == (audited.numbers["charged/EUR"], audited.numbers["events/payments"])
    assert [] == audited.breaks()


def test_a_result_that_is_not_written_is_lost(audited: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that takes an event and answers nothing turns `answered` red."""
    monkeypatch.setattr(UnitWriter, "answer", lambda *_, **__: None)
    audited.lab.send(payment("u1", "p1"))
    assert ["answered"] == audited.breaks()
    body = summary_of(audited.live)
    assert (False, 1, 0) == (body["ok"], body["payments"]["lost"], body["payments"]["double"])


def test_a_second_answer_is_double(audited: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two results of one event turn `answered` red, the other way."""
    answer = UnitWriter.answer

    def twice(self: UnitWriter, one: Answer) -> None:
        answer(self, one)
        money = {"EUR": Money(charged_minor=2 * 999, refunded_minor=0)}
        state = {**to_builtins(one.state), "counts": {"succeeded": 2}, "money": money}
        answer(self, replace(one, state=cast(ChargeState, state)))

    monkeypatch.setattr(UnitWriter, "answer", twice)
    audited.lab.send(payment("u1", "p1"))
    assert ["answered"] == audited.breaks()
    assert (0, 1) == tuple(summary_of(audited.live)["payments"][name] for name in ("lost", "double"))


def test_rows_that_are_changed_behind_its_back_are_noticed(audited: Lab) -> None:
    """Money, results, open payments: the tables are the other side."""
    lab = audited.lab
    lab.send(payment("u1", "p1", amount_minor=300, currency="EUR"))
    state = lab.row("charges", "u1")
    lab.put("charges", "u1", state | {"money": {"EUR": {"charged_minor": 299, "refunded_minor": 1}}})
    assert ["charged", "refunded"] == audited.breaks()
    lab.put("charges", "u1", state | {"counts": {"succeeded": 2}})
    assert ["results", "outcomes"] == audited.breaks()
    lab.put("charges", "u1", state)
    lab.put("open_payments", "u1/p9", {"next_try_at": None, "status": "parked"})
    assert ["open"] == audited.breaks()
    del lab.disks["open_payments"].values[b"u1/p9"]
    lab.disks["charges"].values[b"u2"] = b"damaged"
    assert ["readable"] == audited.breaks()
    del lab.disks["charges"].values[b"u2"]
    assert [] == audited.breaks()


def test_a_break_is_an_error_in_the_log_once(audited: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """With task, invariant, both figures; not again at each look."""
    audited.lab.put("open_payments", "u1/p9", {"next_try_at": None, "status": "parked"})
    with caplog.at_level(logging.ERROR):
        audited.look(5)
    assert ["live audit: task 0: open: 0 expected, 1 found"] == [one.getMessage() for one in caplog.records]


def test_a_walk_takes_as_many_looks_as_it_needs(audited: Lab) -> None:
    """Rows are compared when all of them were seen, as they were when the walk began."""
    lab = audited.lab
    state = {
        "user_id": "u", "counts": {"succeeded": 1}, "last_payment": None,
        "money": {"EUR": {"charged_minor": 1, "refunded_minor": 0}},
    }  # fmt: skip
    for number in range(2 * ROWS_PER_LOOK):
        lab.put("charges", f"u{number:05}", state)
    assert None is audited.look(1).rows
    lab.put("charges", "zzz", state)  # behind the walk's beginning: not part of it
    assert None is audited.look(1).rows
    assert 2 * ROWS_PER_LOOK == audited.look(1).rows.users
    assert 2 * ROWS_PER_LOOK + 1 == audited.look(3).rows.users


def test_a_task_that_goes_away_is_forgotten(audited: Lab) -> None:
    """Its next owner audits it; this worker says nothing of it any more."""
    audited.look()
    audited.lab.assigned.state = "closing"
    audited.lab.loop.run_until_complete(audited.live.run_once(START_MS))
    assert [] == audited.live.tasks()


def test_the_timer_ends_with_its_walks_closed(audited: Lab) -> None:
    """Cancelled amid a walk, it lets go of the databases."""
    lab = audited.lab
    for number in range(2 * ROWS_PER_LOOK):
        lab.put("charges", f"u{number:05}", {"user_id": "u", "counts": {}, "money": {}, "last_payment": None})
    running = lab.loop.create_task(audited.live.run())
    lab.loop.settle(1.5)
    (walk,) = audited.live._walks.values()  # noqa: SLF001
    running.cancel()
    lab.loop.settle()
    assert (True, None) == (running.cancelled(), walk.view._walks)  # noqa: SLF001


def summary_of(live: LiveAudit) -> Any:
    """What `/audit` says."""
    tasks = [as_json(one, live.topic) for one in live.tasks()]
    return orjson.loads(orjson.dumps(summary(tasks, 8, live.topic)))


def test_the_summary_adds_up_tasks_and_counts_each_once(audited: Lab) -> None:
    """A task that moved between two questions answers from two workers: the later look counts."""
    audited.lab.send(payment("u1", "p1", amount_minor=300, currency="EUR"))
    audited.look()
    (task,) = summary_of(audited.live)["tasks"]
    older = task | {"checked_at": task["checked_at"] - 1, "counters": {}}
    other = task | {"partition": 3, "checked_at": 5}
    body = summary([task, older, other], 8, audited.live.topic)
    assert ([0, 3], 8, 5, True) == (body["here"], body["partitions"], body["checked_at"], body["ok"])
    assert (2, 2, 0, 0) == tuple(body["payments"][k] for k in ("handled", "answered", "lost", "double"))
    assert {"EUR": {"charged_minor": 600, "refunded_minor": 0, "exponent": 2}} == body["money"]


def test_nothing_checked_is_not_ok(audited: Lab) -> None:
    """No partition here: neither true nor false, with the reason; a monitor that asks for true sees it."""
    empty = summary([], 8, audited.live.topic)
    assert (None, [], "no partition is checked here now") == (empty["ok"], empty["here"], empty["reason"])
    audited.look()
    (task,) = summary_of(audited.live)["tasks"]
    part = summary([task], 8, audited.live.topic, missing=range(3))
    assert (None, "partitions 1-2 are not checked now") == (part["ok"], part["reason"])
    wrong = task | {"breaks": [Break("charged", "EUR", 2, 1)._asdict()]}
    found = summary([wrong], 8, audited.live.topic, missing=range(3))
    assert (False, "1 open break") == (found["ok"], found["reason"])
    here = summary([task], 8, audited.live.topic, missing=[0])
    assert (True, "") == (here["ok"], here["reason"])


def test_a_partition_that_nobody_reports_now_keeps_its_last_figures(audited: Lab) -> None:
    """A worker's death makes no sum smaller: what it reported last stays, and is named as such."""
    audited.lab.send(payment("u1", "p1", amount_minor=300, currency="EUR"))
    audited.look()
    (task,) = summary_of(audited.live)["tasks"]
    gone = task | {"partition": 3, "checked_at": 5}
    body = summary([task, gone], 8, audited.live.topic, now={0}, missing=range(4))
    assert ([0], {"3": 5}, task["checked_at"]) == (body["here"], body["remembered"], body["checked_at"])
    assert (2, 600) == (body["payments"]["handled"], body["money"]["EUR"]["charged_minor"])
    assert (None, "partitions 1-3 are not checked now") == (body["ok"], body["reason"])


def test_the_metrics_have_the_same_numbers(audited: Lab) -> None:
    """Counters by task, a gauge for each invariant, 0 until it breaks."""
    audited.lab.send(payment("u1", "p1", amount_minor=300, currency="EUR"))
    audited.look()
    registry = CollectorRegistry()
    registry.register(AuditMetrics(audited.live))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"billing_audit_{name}", {"partition": "0", **labels})

    assert (1, 300) == (
        value("events_total", topic="payments"), value("charged_minor_units_total", currency="EUR")
    )  # fmt: skip
    assert {0.0} == {value("breaks", invariant=one) for one in INVARIANTS}
    audited.lab.put("open_payments", "u1/p9", {"next_try_at": None, "status": "parked"})
    audited.look()
    assert (1, 1) == (value("breaks", invariant="open"), value("open", status="parked"))


def test_the_page_and_the_alerts_know_the_metrics(audited: Lab, gateway: AskedGateway) -> None:
    """What a scrape has stands in docs/operations.md; alerts ask for series that exist, with their labels."""
    gateway.script.append(RuntimeError("an answer that nobody understands"))
    audited.lab.send(payment("u1", "p1"), payment("u1", "p2"))
    audited.lab.append(PAYMENTS, None, b"no json")
    audited.lab.handle()
    audited.look()
    there: dict[str, set[str]] = {}
    for family in AuditMetrics(audited.live).collect():
        there.setdefault(family.name + "_total" * (family.type == "counter"), set())
        for sample in family.samples:
            there[sample.name] |= set(sample.labels)

    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert set(there) == set(re.findall(r"billing_audit_\w+", page))
    assert set() == {f"`{one}`" for one in INVARIANTS} - set(re.findall(r"`\w+`", page))
    groups = yaml.safe_load((ROOT / "docs/alerts.yml").read_text(encoding="utf-8"))["groups"]
    (rules,) = [group["rules"] for group in groups if group["name"] == "billing"]
    for rule in rules:
        assert f"`{rule['alert']}`" in page
        (name,) = set(re.findall(r"billing_audit_\w+", rule["expr"])) or {"-"}
        assert set(re.findall(r"(\w+)=\"", rule["expr"])) <= there[name], rule["alert"]
        assert set(re.findall(r"labels\.(\w+)", rule["annotations"]["summary"])) <= there[name] | {"instance"}
