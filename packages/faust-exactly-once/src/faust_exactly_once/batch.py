"""Whole batches of a task's events, the fast way to consume."""

from typing import Any

from .agent_handler import AgentHandler
from .errors import ExactlyOnceError
from .owner import Owner
from .runners import Handler
from .source import Source
from .task import Task


class Batch:
    """Records of a source partition as one Faust event: `async for batch in stream: await batch.each(f)`."""

    __slots__ = ("_at", "_follows", "_owner", "_source", "_taken", "_task", "events")

    def __init__(self, owner: Owner, task: Task, source: Source, events: list[Any]) -> None:
        self.events = events
        self._owner = owner
        self._task = task
        self._source = source
        self._follows = source.delivered
        self._taken = False
        self._at = 0
        source.delivered = max(source.delivered, events[-1].offset + 1)

    def __len__(self) -> int:
        return len(self.events)

    def begin(self) -> bool:
        """Open the batch, once; False if nothing of it may be admitted.

        If the agent left events of an earlier batch unadmitted, the task reopens at its committed offset:
        they come again.
        """
        if self._taken:
            raise ExactlyOnceError("a batch is handed out once")
        self._taken = True
        source = self._source
        if source.admit_from < self._follows:
            skipped = BatchSkipped(f"the agent of {source.topic} skipped events: they come again")
            self._owner.task_failed(self._task, skipped)
            self._at = len(self.events)
        return self._at == 0

    def end(self) -> None:
        """Close the batch: everything of it is admitted, or its epoch is over."""
        if self._task.accepting:
            self._source.queued -= 1
            self._task.moved()

    async def each(self, handler: Handler) -> None:
        """Admit every event to its key queue; returns when all are admitted, not when they are handled.

        Waits while the worker runs as many handlers as it may, of all topics or of this one. Events of an
        old epoch are dropped: the task's next owner gets them again. An agent that is cancelled here has its
        task reopened.
        """
        if not self.begin():
            return
        task, source, owner = self._task, self._source, self._owner
        bounds, queues, share = owner.bounds, task.queues, source.share
        try:
            for event in self.events:
                if bounds.running >= bounds.most_running or share.running >= share.most:
                    await bounds.room(share)
                if not task.accepting:
                    return
                queues.admit(source, event, handler)
        except BaseException:
            owner.task_failed(task, BatchSkipped(f"the agent of {source.topic} was stopped amid a batch"))
            raise
        self.end()

    async def admit_next(self, handler: AgentHandler) -> bool:
        """Admit the next event with its agent's handler; False if none is left to admit.

        An agent that is cancelled here has lost nothing: the same event is the next one.
        """
        bounds, share = self._owner.bounds, self._source.share
        while self._at < len(self.events):
            if bounds.is_full(share):
                await bounds.room(share)
            if not self._task.accepting:
                return False
            event = self.events[self._at]
            self._at += 1
            if self._task.queues.admit(self._source, event, handler.run):
                self._task.followers[handler] = None
                return True
        return False


class BatchSkipped(ExactlyOnceError):
    """Raised when an agent left out events: the task reopens, so that no commit passes them."""
