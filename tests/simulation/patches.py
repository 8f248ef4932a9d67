"""Puts the simulation where the layer imports clock, threads, disk; the clients of Kafka it is given."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from faust_exactly_once import (
    answers,
    assigned_task,
    cluster,
    commit_loop,
    counts,
    health,
    layer,
    opening,
    operator_log,
    producer,
    recovery,
    store,
    stream,
    supervisor,
)
from faust_exactly_once.agent_handler import AgentHandler

from .clock import VirtualTime, clock
from .disk import MemoryBatch, MemoryDatabase, MemoryPath, RealDatabases, Trees
from .fibers import Executor, Lock, Outcome, Threads

LOGGER = logging.getLogger("faust_exactly_once")
CLOCKED = (
    answers, cluster, commit_loop, counts, health, opening, producer, recovery, assigned_task, operator_log,
    store, supervisor,
)  # fmt: skip
OUTSIDE: list[tuple[Any, str, Any]] = [
    (producer, "threading", Threads),
    (producer, "Future", Outcome),
    (store, "Lock", Lock),
    (opening, "ThreadPoolExecutor", Executor),
    (opening, "CONFIRM_S", 0.3),  # the simulation's operator is quick
    *((module, "time", VirtualTime) for module in CLOCKED),
]
DISK: list[tuple[Any, str, Any]] = [
    (opening, "Path", MemoryPath),
    (store, "shutil", Trees),
    (store, "WriteBatch", MemoryBatch),
    (store, "_open", MemoryDatabase),
]


class ToTrace(logging.Handler):
    """Puts the layer's log into the trace."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        clock().note(clock().process.name, "log:", record.getMessage())


TO_TRACE = ToTrace()


@contextmanager
def outside(*, real_disk: bool, with_log: bool) -> Iterator[None]:
    """The layer's own classes run on the simulation."""

    class NumberedTurn(AgentHandler):
        """A turn whose place in a set is the same in every run of a seed."""

        numbers = itertools.count()

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.number = next(self.numbers)

        def __hash__(self) -> int:
            return self.number

    with ExitStack() as stack:
        stack.callback(LOGGER.setLevel, LOGGER.level)
        stack.callback(LOGGER.removeHandler, TO_TRACE)
        stack.callback(setattr, LOGGER, "propagate", LOGGER.propagate)
        LOGGER.setLevel(logging.INFO if with_log else logging.CRITICAL + 1)
        LOGGER.addHandler(TO_TRACE)
        LOGGER.propagate = False
        fresh = [(stream, "AgentHandler", NumberedTurn), (layer.Layer, "_of_app", WeakKeyDictionary())]
        disk = [(store, "_open", RealDatabases(store._open))] if real_disk else DISK  # noqa: SLF001
        for module, name, stand_in in [*OUTSIDE, *fresh, *disk]:
            stack.enter_context(patch.object(module, name, stand_in))
        yield
