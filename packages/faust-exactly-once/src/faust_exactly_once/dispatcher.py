"""Hands out what is fetched: which partitions may be fetched, which batches their agents get."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from .batch import Batch, BatchSkipped
from .counts import reason
from .errors import ExactlyOnceError, FetchFailed
from .facts import TP
from .state import State
from .task import Task


class Fetched(NamedTuple):
    """What one fetch brought of one source partition.

    Attributes:
        epoch: of the task, for which the consumer stands where it stands.
        start, end: the consumer's position before and after: `events` is all there is in between.
        error: why nothing can be read on from `start`.
        log_end: up to where the log could be read at the broker's last answer, None where that is not known.
    """

    epoch: int
    start: int
    events: list[Any]
    end: int
    error: Exception | None = None
    log_end: int | None = None


class Dispatcher:
    """Between the consumer, which fetches, and the agents, which get batches."""

    def __init__(self, state: State) -> None:
        self._state = state

    def wanted(self) -> dict[TP, Task]:
        """Partitions whose task may take more events."""
        if self._state.bounds.holds_too_much():
            return {}
        return {
            (source.topic, task.partition): task
            for assigned in self._state.assigned_tasks.values()
            if assigned.state == "running" and (task := assigned.task) is not None and task.has_room()
            for source in task.sources.values()
            if source.queued < 2
        }

    def batches(self, fetched: Mapping[TP, Fetched]) -> list[tuple[str, Batch]]:
        """Turn one fetch into batches; what belongs to an old epoch is dropped.

        A fetch must begin where the one before ended: a hole would be committed with what comes after it.
        Marks each batch as delivered before the position moves: until it is admitted, no commit may carry
        that position.
        """
        made: list[tuple[str, Batch]] = []
        for (topic, partition), got in fetched.items():
            assigned = self._state.assigned_tasks.get(partition)
            task = assigned.task if assigned is not None else None
            if task is None or task.epoch != got.epoch or not task.accepting:
                continue
            source = task.sources[topic]
            if got.error is not None or got.start > source.position:
                self._state.task_failed(task, _unreadable(topic, partition, got, source.position))
                continue
            if got.events:
                self._state.assigned_tasks[partition].gets_events()
                source.queued += 1
                made.append((topic, Batch(self._state, task, source, got.events)))
            source.position = max(source.position, got.end)
            source.log_end = got.log_end or source.log_end
            if not got.events and source.idle_position() is not None:
                task.moved()
        return made


def _unreadable(topic: str, partition: int, got: Fetched, expected: int) -> ExactlyOnceError:
    """Why a task cannot go on from a fetch.

    An offset out of range may be so on one leader, in one moment: the opening asks until that is a fact.
    """
    if got.error is not None:
        return FetchFailed(f"{topic}-{partition} cannot be read from offset {got.start}: {reason(got.error)}")
    where = f"{topic}-{partition} was fetched from {got.start}, expected {expected}"
    return BatchSkipped(f"{where}: records in between are missing")
