"""What a handler reports of its event is passed on once its transaction is committed, and never else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from layer_kit.memory_kafka import Record
from layer_kit.running_task import RunningTask
from layer_kit.virtual_time import VirtualTimeLoop

from faust_exactly_once.units import current_unit


class ReportingTask(RunningTask):
    """`reported` is what was reported of its commits so far; while it `breaks`, a report raises."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.reported: list[tuple[Any, ...]] = []
        self.breaks = False
        super().__init__(loop, on_committed=self._on_committed)

    def _on_committed(self, event: Any, facts: tuple[Any, ...]) -> None:
        if self.breaks:
            raise RuntimeError("the log is broken")
        self.reported.append((event.offset, *facts))


@pytest.fixture
def bench() -> Iterator[ReportingTask]:
    loop = VirtualTimeLoop()
    yield ReportingTask(loop)
    loop.end()


async def tells(event: Record) -> None:
    current_unit().report("done", 5)


def test_it_is_told_after_the_commit_with_its_event(bench: ReportingTask) -> None:
    """Not when the handler has ended: nothing of that exists yet for a reader."""
    bench.handle(tells, b"a", b"b")
    assert [] == bench.reported
    bench.commit()
    assert [(0, "done", 5), (1, "done", 5)] == bench.reported


@pytest.mark.parametrize("ending", ["is fenced", "loses the membership"])
def test_what_did_not_surely_commit_is_not_told(bench: ReportingTask, ending: str) -> None:
    """Whoever handles the event again tells of it."""
    bench.handle(tells, b"a")
    bench.commit(ending)
    assert [] == bench.reported


def test_a_handler_that_runs_again_tells_once(bench: ReportingTask) -> None:
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


def test_a_log_that_is_broken_undoes_no_commit(bench: ReportingTask) -> None:
    """The task goes on."""
    bench.breaks = True
    bench.handle(tells, b"a")
    bench.commit()
    bench.breaks = False
    bench.handle(tells, b"b")
    bench.commit()
    assert [(1, "done", 5)] == bench.reported
    assert bench.task.is_open


def test_a_log_that_cannot_even_take_its_own_failure_undoes_no_commit(bench: ReportingTask) -> None:
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
