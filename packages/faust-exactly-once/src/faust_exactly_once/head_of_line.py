"""Head-of-line blocking: which events hold up the commits behind them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

BEGINS, OVER = "begins", "over"


class FirstUncommitted(NamedTuple):
    """The first event of a source partition that is not committed.

    `held_by` is where it is: "agent" (delivered, not admitted), "handler" (not finished), "commit"
    (finished, not committed). Time stamp and key are known from its admission on.
    """

    topic: str
    offset: int
    held_by: str
    at_ms: int | None = None
    key: bytes | None = None


class Watched(Protocol):
    """What is looked at of a source partition: see `Source` in source.py."""

    topic: str
    committed: int | None

    def first_uncommitted(self) -> FirstUncommitted | None:
        """The first event that is not committed."""


@dataclass(slots=True)
class Blocker:
    """An event that nothing behind it can commit past, since the first look that found it there."""

    event: FirstUncommitted
    since_s: float
    alarmed: bool = False

    def age_s(self, now_s: float) -> float:
        """How long it has held up the commits behind it."""
        return now_s - self.since_s

    def status(self, now_s: float) -> dict[str, Any]:
        """What everybody may see: a message key may be personal data."""
        event = self.event
        return {
            "topic": event.topic, "offset": event.offset, "at_ms": event.at_ms, "held_by": event.held_by,
            "gap_s": round(self.age_s(now_s), 3),
        }  # fmt: skip


class Blockers:
    """The blockers of one task, at most one for each of its sources; they outlive its task epochs."""

    def __init__(self, alarm_s: float) -> None:
        self._alarm_s = alarm_s
        self._blockers: dict[str, Blocker] = {}
        self._over: list[Blocker] = []

    def see(self, sources: Iterable[Watched], now_s: float) -> None:
        """Look at the sources; `now_s` is the monotonic clock.

        Only a commit past its event ends a blocker: while the task reopens there is nothing to see.
        """
        for source in sources:
            blocker, event = self._blockers.get(source.topic), source.first_uncommitted()
            committed = -1 if source.committed is None else source.committed
            if blocker is not None and committed > blocker.event.offset:
                self._end(blocker)
                blocker = None
            if event is None:
                continue
            if blocker is None or event.offset < blocker.event.offset:
                self._blockers[source.topic] = Blocker(event, now_s)
            else:
                blocker.event = event

    def end(self) -> None:
        """The task has gone to another worker."""
        for blocker in list(self._blockers.values()):
            self._end(blocker)

    def _end(self, blocker: Blocker) -> None:
        del self._blockers[blocker.event.topic]
        if blocker.alarmed:
            self._over.append(blocker)

    def oldest(self) -> Blocker | None:
        """The blocker that has lasted longest, or None."""
        return min(self._blockers.values(), key=lambda blocker: blocker.since_s, default=None)

    def is_alarm(self, blocker: Blocker | None, now_s: float) -> bool:
        """True if a blocker is past its deadline."""
        return blocker is not None and blocker.age_s(now_s) >= self._alarm_s

    def news(self, now_s: float) -> list[tuple[str, Blocker]]:
        """The alarms that ended, then those that begin; each is reported once."""
        found = [(OVER, blocker) for blocker in self._over]
        self._over.clear()
        for blocker in self._blockers.values():
            if not blocker.alarmed and self.is_alarm(blocker, now_s):
                blocker.alarmed = True
                found.append((BEGINS, blocker))
        return found
