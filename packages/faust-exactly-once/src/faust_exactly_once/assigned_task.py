"""One assigned partition with what became of it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from .counts import Counts
from .environment import Clock
from .membership import Membership
from .recovery import Recovery
from .source import Source
from .task import Task

STATES = ("fencing", "recovering", "running", "blocked", "closing", "closed")


@dataclass(slots=True)
class AssignedTask:
    """One assigned partition with its current epoch.

    `state` is one of STATES; `why` says what it waits for.
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
    counts: Counts = field(default_factory=Counts)
    stages_ms: dict[str, float] = field(default_factory=dict)
    clock: Clock = time
    runs_since: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def over(self) -> bool:
        """True once the group has taken the partition away."""
        return self.revoked

    def runs(self) -> None:
        """The task is open: from here on its agents may be given events."""
        self.state, self.why = "running", ""
        self.runs_since = self.clock.monotonic()
        self.counts.opened += 1
        self.settled.set()

    def opened_in(self, fence_ms: float, recover_ms: float) -> None:
        """Note the stages of this opening beside those of its rebalance."""
        self.stages_ms.pop("first_events", None)
        self.stages_ms.update(fence=fence_ms, recover=recover_ms)

    def gets_events(self) -> None:
        """The agents are given events: the last stage of an opening, if there was something to do."""
        if "first_events" not in self.stages_ms:
            self.stages_ms["first_events"] = (self.clock.monotonic() - self.runs_since) * 1e3

    def sources(self) -> list[Source]:
        """The source partitions while the task is open."""
        return list(self.task.sources.values()) if self.task is not None and self.task.is_open else []

    def status(self) -> dict[str, Any]:
        """The state for metrics, views, the log (point 13)."""
        task, recovery = self.task, self.recovery
        return {
            "partition": self.partition,
            "state": self.state,
            "why": self.why,
            "recovered": recovery.done if recovery else 0,
            "to_recover": recovery.total if recovery else 0,
            "waiting_units": task.waiting_units() if task else 0,
            "stages_ms": dict(self.stages_ms),
            **self.counts.status(),
        }
