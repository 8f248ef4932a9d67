"""What a worker remembers of the others, what it makes of all that they say; the answers are the test's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamsocial_billing.web.status.findings import findings
from streamsocial_billing.web.status.merging import merged, newest_books, newest_open
from streamsocial_billing.web.status.peers import FRESH_MS, GONE_KEPT_MS, Peers
from streamsocial_billing.web.status.report import Report
from streamsocial_billing.web.status.state import NO_WORKER, NOT_KNOWN, RUNNING, State

NOW = 1_790_000_000_000
ONE, TWO, NEW = "http://one:6066", "http://two:6066", "http://new:6066"


def books(partition: int, checked_ms: int = NOW, **more: Any) -> dict[str, Any]:
    """The live audit of a task."""
    return {"partition": partition, "checked_at": checked_ms, "breaks": []} | more


def report(url: str, *partitions: int, at_ms: int = NOW, owners: Any = None, **more: Any) -> Report:
    """What a worker with these partitions says; four are shared out half and half."""
    return {
        "url": url, "at": at_ms, "total": 4,
        "kafka": {"answers": True, "since": None, "last_contact": at_ms},
        "assignment": {"at": at_ms, "owners": owners or {"0": ONE, "1": ONE, "2": TWO, "3": TWO}},
        "tasks": [{"partition": p, "state": RUNNING, "why": "", "stuck": None} for p in partitions],
        "gateways": [{"name": "stripe", "state": "closed", "since": None, "actor": "", "reason": ""}],
        "open": {str(p): [] for p in partitions},
        "backlog": {str(p): {"count": 1, "unread": 0, "oldest": at_ms - 5} for p in partitions},
        "books": [books(p, at_ms) for p in partitions],
    } | more  # fmt: skip


class Bench:
    """Workers that answer what the test says."""

    def __init__(self, **answers: Report | None) -> None:
        self.answers: dict[str, Report | None] = {TWO: report(TWO, 2, 3)}
        self.asked: list[str] = []
        self.peers = Peers(self._ask)
        self.now_ms = NOW

    async def _ask(self, url: str) -> Report | None:
        self.asked.append(url)
        return self.answers.get(url)

    def look(self, *urls: str, after_ms: int = FRESH_MS) -> None:
        """Ask these and who is known, so much later."""
        self.now_ms += after_ms
        asyncio.run(self.peers.look(urls, self.now_ms))

    def state(self, own: Report | None = None) -> State:
        """What the worker ONE makes of it."""
        own = own or report(ONE, 0, 1, at_ms=self.now_ms)
        known = list(self.peers.known.values())
        every = [own, *(peer.report for peer in known if peer.report)]
        return merged(own, known, newest_books(every), newest_open(every))


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.look(TWO)
    return bench


def test_two_workers_that_answer_are_one_system_that_is_well(bench: Bench) -> None:
    """Every partition runs at its owner; backlogs are added up."""
    state = bench.state()
    assert ["all_well"] == [one.code for one in findings(state)]
    assert [(ONE, RUNNING)] * 2 + [(TWO, RUNNING)] * 2 == [(p.owner, p.state) for p in state.partitions]
    assert (4, NOW - 5) == (state.backlog.count, state.backlog.oldest_ms)


def test_a_worker_that_answers_no_more_is_silent_since_its_last_answer(bench: Bench) -> None:
    """Its partitions are not known; what it reported last stays."""
    answered_ms = bench.now_ms
    bench.answers[TWO] = None
    for _ in range(5):
        bench.look(TWO)
    state = bench.state()
    silent = next(worker for worker in state.workers if not worker.answers)
    assert (TWO, answered_ms, (2, 3)) == (silent.url, silent.since_ms, silent.partitions)
    assert [NOT_KNOWN] * 2 == [p.state for p in state.partitions if p.owner == TWO]
    assert [NOW, NOW] == [p.checked_ms for p in state.partitions if p.owner == TWO]
    assert ["worker_silent", "figures_old"] == [one.code for one in findings(state)]


def test_a_worker_whose_partitions_went_to_others_is_gone_until_it_is_back(bench: Bench) -> None:
    """A warning for an hour, or until it answers again."""
    bench.answers[TWO] = None
    bench.look()
    own = report(ONE, 0, 1, 2, 3, at_ms=bench.now_ms, owners=dict.fromkeys("0123", ONE))
    assert ["worker_gone"] == [one.code for one in findings(bench.state(own))]
    bench.answers[TWO] = report(TWO, at_ms=NOW, owners=dict.fromkeys("0123", ONE))
    bench.look()
    assert ["all_well"] == [one.code for one in findings(bench.state(own))]
    bench.answers[TWO] = None
    bench.look(after_ms=GONE_KEPT_MS)
    bench.look(after_ms=GONE_KEPT_MS)
    assert [] == list(bench.peers.known)


def test_a_worker_that_another_one_has_replaced_is_forgotten(bench: Bench) -> None:
    """A new address takes the place of the old one: nobody is missed."""
    bench.answers = {TWO: None}
    bench.look()
    bench.answers = {NEW: report(NEW, 2, 3)}
    bench.look(NEW)
    assert [NEW] == list(bench.peers.known)


def test_an_address_that_never_answered_is_silent_while_it_has_partitions(bench: Bench) -> None:
    """Then it is forgotten: nobody has ever seen a worker there."""
    bench.look(TWO, NEW)
    first_ms = bench.now_ms
    bench.look(TWO, NEW)
    assert first_ms == bench.peers.known[NEW].lost_ms
    bench.look(TWO)
    assert [TWO] == list(bench.peers.known)


def test_many_who_look_ask_once(bench: Bench) -> None:
    """Within FRESH_MS the answers count; a worker that nobody has asked yet is asked at once."""
    bench.asked.clear()
    for _ in range(10):
        bench.look(TWO, after_ms=1)
    assert [] == bench.asked
    bench.look(TWO, NEW, after_ms=1)
    assert [TWO, NEW] == bench.asked


def test_the_newest_assignment_counts(bench: Bench) -> None:
    """A worker that is cut off from Kafka still believes in the old one."""
    later = {"0": TWO, "1": TWO, "2": TWO, "3": None}
    bench.answers[TWO] = report(TWO, 0, 1, 2, at_ms=NOW + 10_000, owners=later)
    bench.look(TWO)
    states = bench.state(report(ONE, 0, 1)).partitions
    assert [(TWO, RUNNING)] * 3 + [(None, NO_WORKER)] == [(p.owner, p.state) for p in states]


def test_a_gateway_is_as_bad_as_the_worst_that_a_worker_says(bench: Bench) -> None:
    """A breaker is each worker's own; the earliest of them says since when."""
    opened = {"name": "stripe", "state": "open", "since": NOW - 50, "actor": "", "reason": "unreachable"}
    bench.answers[TWO] = report(
        TWO, 2, 3, gateways=[opened],
        open={"2": [{"gateway": "stripe", "status": "unknown", "count": 7, "oldest": NOW - 99}]},
    )  # fmt: skip
    bench.look(TWO)
    (gateway,) = bench.state().gateways
    assert ("open", NOW - 50, "unreachable", 7) == (
        gateway.state, gateway.since_ms, gateway.reason, gateway.waiting,
    )  # fmt: skip
    assert (7, NOW - 99) == (bench.state().unknown.count, bench.state().unknown.oldest_ms)
