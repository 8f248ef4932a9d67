"""How many events of a key wait in a task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from layer_kit.memory_kafka import Record
from layer_kit.running_task import RunningTask
from layer_kit.virtual_time import VirtualTimeLoop


@pytest.fixture
def running() -> Iterator[RunningTask]:
    """A task with an event loop of its own."""
    loop = VirtualTimeLoop()
    yield RunningTask(loop)
    loop.close()


def test_events_of_a_key_count_until_they_are_handled(running: RunningTask) -> None:
    """Those that wait for their turn and the one that runs; not those of other keys."""
    go = {key: asyncio.Event() for key in (b"a", b"b")}

    async def handler(event: Record) -> None:
        await go[event.key or b""].wait()

    running.handle(handler, b"a", b"a", b"b", b"a")
    count = running.layer.unfinished_of_key
    assert (3, 2, 1, 0) == (count(0, b"a", 9), count(0, b"a", 2), count(0, b"b", 9), count(0, b"c", 9))
    go[b"a"].set()
    running.loop.settle()
    assert (0, 1) == (count(0, b"a", 9), count(0, b"b", 9))
    running.handle(handler, b"a", b"b")
    assert (0, 2) == (count(0, b"a", 9), count(0, b"b", 9))


def test_where_the_task_is_not_nobody_knows(running: RunningTask) -> None:
    """Another worker has it, or it is not recovered."""
    with pytest.raises(LookupError):
        running.layer.unfinished_of_key(1, b"a", 9)
