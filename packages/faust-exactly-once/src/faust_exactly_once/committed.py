"""What a worker may show of its tasks: committed values, what waits (point 5)."""

import asyncio
from collections.abc import Iterable

from .errors import StoreFailed
from .source import Waiting
from .state import State
from .task import Task
from .task_stores import View


class CommittedState:
    """The committed state of the tasks that this worker owns and has recovered."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _running(self, partition: int) -> Task | None:
        """The task, if it is here and recovered."""
        assigned = self._state.assigned_tasks.get(partition)
        task = None if assigned is None or assigned.state != "running" else assigned.task
        return task if task is not None and task.accepting else None

    def committed_value(self, partition: int, table: str, key: bytes) -> bytes | None:
        """A committed value of a task that this worker owns and has recovered (point 5).

        Raises:
            LookupError: if it does not, or has not yet.
        """
        task = self._running(partition)
        if task is None:
            raise LookupError(f"partition {partition} is not here, or not recovered yet")
        try:
            return task.committed_value(table, key)
        except StoreFailed as exc:
            raise LookupError(f"partition {partition} cannot be read now: {exc}") from exc

    def committed_items(
        self, partition: int, table: str, limit: int, after: str = ""
    ) -> list[tuple[str, bytes]]:
        """Committed keys and values of a table in a recovered task, in key order; empty if it is not here."""
        task = self._running(partition)
        if task is None:
            return []
        try:
            return task.committed_items(table, limit, after)
        except StoreFailed:
            return []  # it closes this moment; whoever opens it next is asked next

    async def view(self, partition: int, tables: Iterable[str]) -> View | None:
        """The tables of a recovered task as one commit left them; close it. None if the task is not here."""
        task = self._running(partition)
        if task is None:
            return None
        try:
            return await asyncio.to_thread(task.view, tables)
        except StoreFailed:
            return None  # it closes this moment

    def unfinished_of_key(self, partition: int, key: bytes, most: int) -> int:
        """How many events of a key have been admitted and not yet handled, `most` if that many or more.

        Raises:
            LookupError: if this worker does not own the task, or has not recovered it yet.
        """
        task = self._running(partition)
        if task is None:
            raise LookupError(f"partition {partition} is not here, or not recovered yet")
        return task.queues.unfinished(key, most)

    def waiting(self, topic: str) -> dict[int, Waiting]:
        """What waits in each task that runs here, of one source topic; by partition."""
        return {
            partition: source.waiting()
            for partition, assigned in sorted(self._state.assigned_tasks.items())
            for source in assigned.sources() if source.topic == topic
        }  # fmt: skip

    def assigned_partitions(self) -> list[int]:
        """The partitions whose tasks are this worker's, running or not."""
        return sorted(self._state.assigned_tasks)

    def running_partitions(self) -> list[int]:
        """The partitions whose tasks run here."""
        tasks = sorted(self._state.assigned_tasks.items())
        return [partition for partition, assigned in tasks if assigned.state == "running"]
