"""Whole batches of a task's events, the fast way to consume."""

from typing import TYPE_CHECKING, Any

from .errors import ExactlyOnceError
from .task import Handler, Source, Task

if TYPE_CHECKING:
    from .layer import Layer


class Batch:
    """Records of a source partition as one Faust event: `async for batch in stream: await batch.each(f)`."""

    __slots__ = ("_follows", "_layer", "_source", "_taken", "_task", "events")

    def __init__(self, layer: "Layer", task: Task, source: Source, events: list[Any]) -> None:
        self.events = events
        self._layer = layer
        self._task = task
        self._source = source
        self._follows = source.delivered
        self._taken = False
        source.delivered = max(source.delivered, events[-1].offset + 1)

    def __len__(self) -> int:
        return len(self.events)

    async def each(self, handler: Handler) -> None:
        """Admit every event to its key lane; returns when all are admitted, not when they are handled.

        If the agent left events of an earlier batch unadmitted (it never called `each`, or cancelled it), the
        task reopens at its committed offset: they come again.

        Waits while the worker runs as many handlers as it may. Events of an old incarnation are dropped:
        the task's next owner gets them again.
        """
        if self._taken:
            raise ExactlyOnceError("a batch is handed out once")
        self._taken = True
        task, source, layer = self._task, self._source, self._layer
        if source.admit_from < self._follows:
            skipped = BatchSkipped(f"the agent of {source.topic} skipped events: they come again")
            layer.task_failed(task, skipped)
            return
        try:
            for event in self.events:
                if layer.is_full():
                    await layer.room()
                if not task.accepting:
                    return
                task.admit(source, event, handler)
        except BaseException:
            layer.task_failed(task, BatchSkipped(f"the agent of {source.topic} was stopped amid a batch"))
            raise
        source.queued -= 1
        task.moved()


class BatchSkipped(ExactlyOnceError):
    """Raised when an agent left out events: the task reopens, so that no commit passes them."""
