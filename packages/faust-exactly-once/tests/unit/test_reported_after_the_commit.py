"""What a handler reports of its event is passed on once its transaction is committed, and never else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from layer_kit.memory_kafka import MemoryDisk, MemoryKafka, MemoryProducer, MemoryStore, Record
from layer_kit.virtual_time import Held, VirtualTimeLoop

from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.commit import Committer
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.source import Source
from faust_exactly_once.task import Task
from faust_exactly_once.task_stores import TaskStores
from faust_exactly_once.units import current_unit

TP = ("events", 0)


class App:
    """What the layer needs of an app: to be there."""


class Bench:
    """A running task whose commits are in the test's hand; `reported` is what was reported so far."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop, self.held, self.reported = loop, Held(), []  # type: ignore[var-annotated]
        self.breaks = False
        self.kafka = MemoryKafka([TP])
        self.app = App()
        options = Options(client_config={}, on_committed=self._on_committed)
        self.layer = Layer(self.app, options)
        stores = TaskStores({"t": MemoryStore(MemoryDisk(), self.kafka)})
        membership = Membership("group", 1, "member")
        committer = Committer(MemoryProducer(self.kafka), stores, 0, membership, {"t": "log"}, options)
        sources = {"events": Source("events", 0, 0, None)}
        self.task = Task(self.layer.state, 0, sources, stores, committer, self.held)
        self.layer.assigned_tasks[0] = AssignedTask(
            0, frozenset(["events"]), membership, "running", task=self.task
        )
        loop.call_soon(self.task.start)
        loop.settle()

    def _on_committed(self, event: Any, facts: tuple[Any, ...]) -> None:
        if self.breaks:
            raise RuntimeError("the log is broken")
        self.reported.append((event.offset, *facts))

    def handle(self, handler: Any, *keys: bytes) -> None:
        """New events, handled as far as they come by themselves."""
        events = [self.kafka.append(TP, key, False) for key in keys]
        got = Fetched(self.task.epoch, events[0].offset, events, len(self.kafka.logs[TP]))
        ((_, batch),) = self.layer.dispatcher.batches({TP: got})
        self.loop.create_task(batch.each(handler))
        self.loop.settle()

    def commit(self, ending: str = "commits") -> None:
        """Let the commit thread do one commit."""
        self.kafka.ending = ending
        self.held.run_next()
        self.kafka.ending = "commits"
        self.loop.settle()


@pytest.fixture
def bench() -> Iterator[Bench]:
    loop = VirtualTimeLoop()
    yield Bench(loop)
    loop.end()


async def tells(event: Record) -> None:
    current_unit().report("done", 5)


def test_it_is_told_after_the_commit_with_its_event(bench: Bench) -> None:
    """Not when the handler has ended: nothing of that exists yet for a reader."""
    bench.handle(tells, b"a", b"b")
    assert [] == bench.reported
    bench.commit()
    assert [(0, "done", 5), (1, "done", 5)] == bench.reported


@pytest.mark.parametrize("ending", ["is fenced", "loses the membership"])
def test_what_did_not_surely_commit_is_not_told(bench: Bench, ending: str) -> None:
    """Whoever handles the event again tells of it."""
    bench.handle(tells, b"a")
    bench.commit(ending)
    assert [] == bench.reported


def test_a_handler_that_runs_again_tells_once(bench: Bench) -> None:
    """What a try that failed wanted reported is forgotten with all else that it did."""
    tries: list[Record] = []

    async def fails_once(event: Record) -> None:
        current_unit().report("try", len(tries))
        tries.append(event)
        if len(tries) == 1:
            raise ValueError("once")

    bench.handle(fails_once, b"a")
    bench.loop.settle(1)
    bench.commit()
    assert [(0, "try", 1)] == bench.reported


def test_a_log_that_is_broken_undoes_no_commit(bench: Bench) -> None:
    """The task goes on."""
    bench.breaks = True
    bench.handle(tells, b"a")
    bench.commit()
    bench.breaks = False
    bench.handle(tells, b"b")
    bench.commit()
    assert [(1, "done", 5)] == bench.reported
    assert bench.task.is_open


def test_a_log_that_cannot_even_take_its_own_failure_undoes_no_commit(bench: Bench) -> None:
    """A handler of somebody else's logging set-up that raises: the epoch goes on all the same."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no disk")

    handler, logger = Raises(), logging.getLogger("faust_exactly_once.task")
    logger.addHandler(handler)
    try:
        bench.breaks = True
        bench.handle(tells, b"a")
        bench.commit()
    finally:
        logger.removeHandler(handler)
    assert bench.task.is_open
    assert bench.layer.assigned_tasks[0].failure is None
