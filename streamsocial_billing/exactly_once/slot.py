"""One assigned partition with what became of it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from .membership import Membership
from .recovery import Recovery
from .task import Task


@dataclass(slots=True)
class Slot:
    """One assigned partition with its current incarnation.

    `state` is one of fencing, recovering, running, blocked, closed; `why` says what it waits for.
    """

    partition: int
    topics: frozenset[str]
    membership: Membership
    state: str = "fencing"
    why: str = ""
    revoked: bool = False
    task: Task | None = None
    recovery: Recovery | None = None
    failure: BaseException | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def over(self) -> bool:
        """True once the group has taken the partition away."""
        return self.revoked

    def status(self) -> dict[str, Any]:
        """The state for metrics, views, the log (point 13)."""
        task, recovery = self.task, self.recovery
        oldest = task.oldest_waiting() if task is not None else None
        return {
            "partition": self.partition,
            "state": self.state,
            "why": self.why,
            "recovered": recovery.done if recovery else 0,
            "to_recover": recovery.total if recovery else 0,
            "waiting_units": task.waiting_units() if task else 0,
            "oldest": None
            if oldest is None
            else {"offset": oldest.event.offset, "at_ms": oldest.event.timestamp},
            "commits": task.commits if task else 0,
            "last_commit_ms": task.last_commit_ms if task else 0.0,
            "stages_ms": self.stages_ms,
        }
