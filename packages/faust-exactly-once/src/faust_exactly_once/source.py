"""A source partition of a task: where its consumer stands, what of it is not committed."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from .bounds import Share
from .head_of_line import FirstUncommitted
from .units import Unit


class Waiting(NamedTuple):
    """Events of a source partition that are not committed.

    Attributes:
        admitted: those that have a place in a handler's row: exact.
        unread: offsets behind them, up to the log's end at the last fetch: at most so many events, since
            transaction markers take offsets too.
        oldest_ms: the time stamp of the first of them, ms since the epoch; None where that is not known.
    """

    admitted: int
    unread: int
    oldest_ms: int | None


@dataclass(slots=True)
class Source:
    """One source partition of a task, in this epoch.

    Attributes:
        admit_from: first offset not yet handed to a handler; earlier ones are dropped (point 7).
        position: where the consumer stands, markers included.
        committed: the offset that the last commit carried, or None.
        end_at_open: the log's end after the fence: no task epoch before can have seen what came later.
        queued: batches delivered to the agent, not yet admitted.
        delivered: offset after the last event delivered to the agent.
        run: uncommitted units in delivery order.
        log_end: up to where the log could be read at the last fetch; 0: not fetched yet.
        share: of the worker's handlers, for this topic; its task sets it.
    """

    topic: str
    admit_from: int
    position: int
    committed: int | None
    end_at_open: int = 0
    queued: int = 0
    delivered: int = 0
    run: deque[Unit] = field(default_factory=deque)
    log_end: int = 0
    share: Share = field(default_factory=Share)

    def waiting(self) -> Waiting:
        """How much is not committed; looks only."""
        delivered = self.position - self.admit_from if self.queued else 0
        unread = max(0, delivered) + max(0, self.log_end - self.position)
        oldest_ms = self.run[0].event.timestamp if self.run else None
        return Waiting(len(self.run), unread, oldest_ms)

    def idle_position(self) -> int | None:
        """Where to commit when everything delivered is finished, or None if that stands already."""
        if self.run or self.queued or self.position <= (self.committed if self.committed is not None else -1):
            return None
        return self.position

    def first_uncommitted(self) -> FirstUncommitted | None:
        """The first event that is not committed, for the paged engineer (point 13)."""
        if self.run:
            unit, event = self.run[0], self.run[0].event
            held_by = "commit" if unit.finished else "handler"
            return FirstUncommitted(self.topic, event.offset, held_by, event.timestamp, event.key)
        return FirstUncommitted(self.topic, self.admit_from, "agent") if self.queued else None
