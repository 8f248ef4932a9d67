"""Finding the events that hold up the commits behind them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

BEGINS, OVER = "begins", "over"


class Head(NamedTuple):
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
    """What is looked at of a source partition: see `Source` in task.py."""

    topic: str
    committed: int | None

    def head(self) -> Head | None:
        """The first event that is not committed."""


@dataclass(slots=True)
class Gap:
    """An event that nothing behind it can commit past, since the first look that found it there."""

    head: Head
    since_s: float
    alarmed: bool = False

    def age_s(self, now_s: float) -> float:
        """How long it has held up the commits behind it."""
        return now_s - self.since_s

    def status(self, now_s: float) -> dict[str, Any]:
        """What everybody may see: a message key may be personal data."""
        head = self.head
        return {
            "topic": head.topic, "offset": head.offset, "at_ms": head.at_ms, "held_by": head.held_by,
            "gap_s": round(self.age_s(now_s), 3),
        }  # fmt: skip


class Gaps:
    """The gaps of one task, at most one for each of its sources; they outlive its incarnations."""

    def __init__(self, alarm_s: float) -> None:
        self._alarm_s = alarm_s
        self._gaps: dict[str, Gap] = {}
        self._over: list[Gap] = []

    def see(self, sources: Iterable[Watched], now_s: float) -> None:
        """Look at the sources; `now_s` is the monotonic clock.

        Only a commit past its event ends a gap: while the task reopens there is nothing to see.
        """
        for source in sources:
            gap, head = self._gaps.get(source.topic), source.head()
            if gap is not None and source.committed is not None and source.committed > gap.head.offset:
                self._end(gap)
                gap = None
            if head is None:
                continue
            if gap is None or head.offset < gap.head.offset:
                self._gaps[source.topic] = Gap(head, now_s)
            else:
                gap.head = head

    def end(self) -> None:
        """The task has gone to another worker."""
        for gap in list(self._gaps.values()):
            self._end(gap)

    def _end(self, gap: Gap) -> None:
        del self._gaps[gap.head.topic]
        if gap.alarmed:
            self._over.append(gap)

    def oldest(self) -> Gap | None:
        """The gap that has lasted longest, or None."""
        return min(self._gaps.values(), key=lambda gap: gap.since_s, default=None)

    def is_alarm(self, gap: Gap | None, now_s: float) -> bool:
        """True if a gap is past its deadline."""
        return gap is not None and gap.age_s(now_s) >= self._alarm_s

    def news(self, now_s: float) -> list[tuple[str, Gap]]:
        """The alarms that ended, then those that begin; each is told once."""
        told = [(OVER, gap) for gap in self._over]
        self._over.clear()
        for gap in self._gaps.values():
            if not gap.alarmed and self.is_alarm(gap, now_s):
                gap.alarmed = True
                told.append((BEGINS, gap))
        return told
