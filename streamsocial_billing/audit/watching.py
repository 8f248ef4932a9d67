"""Audits the tasks of a worker all the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from faust_exactly_once import Counters, Layer, StoreFailed, View, read_counters
from streamsocial_billing.audit.live import (
    Break,
    Rows,
    breaks_of_counters,
    breaks_of_rows,
)
from streamsocial_billing.audit.outcomes import Numbers, answered, breakdown, open_now
from streamsocial_billing.domain.times import now_ms

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
ROWS_PER_LOOK: Final = 500  # per task: two milliseconds of a core
ROUND_EVERY_MS: Final = 10_000  # from the begin of a walk through a task's rows to that of the next one


@dataclass(frozen=True, slots=True)
class Checked:
    """What the audit knows of one task.

    numbers     the counters at the last look
    at_ms       when that was, ms since the epoch
    rows        what the rows amounted to when they were walked through; None: not yet
    rows_at_ms  the moment of which those rows are
    open        open payments by status at the last look; empty before their rows were walked through once
    breaks      what does not hold
    """

    partition: int
    numbers: Numbers
    at_ms: int
    rows: Rows | None
    rows_at_ms: int
    open: Mapping[str, int]
    breaks: tuple[Break, ...]


@dataclass(slots=True)
class Walk:
    """A walk through the rows of a task, as one commit left them, with the counters of that commit."""

    view: View
    began_ms: int
    numbers: Numbers | None = None
    rows: Rows = field(default_factory=Rows)
    left: list[str] = field(default_factory=lambda: ["charges", "open_payments"])  # the last one first

    @property
    def listed(self) -> dict[str, int] | None:
        """Open payments by status in the rows, once all of them were seen."""
        return None if "open_payments" in self.left else dict(self.rows.open)

    def go_on(self, counters: str, most: int) -> bool:
        """Add up the next rows; in a thread.

        Returns:
            True once these were the last.

        Raises:
            StoreFailed: the task has ended, or its database cannot be read.
        """
        if self.numbers is None:
            self.numbers = read_counters(next((value for _, value in self.view.take(counters, 1)), None))
        while self.left and most > 0:
            found = self.view.take(self.left[-1], most)
            values = [value for _, value in found]
            add = self.rows.add_charges if self.left[-1] == "charges" else self.rows.add_open
            add(values)
            if len(found) < most:
                self.left.pop()
            most -= len(found)
        return not self.left


class LiveAudit:
    """Checks the counters of the tasks here every second, their rows as fast as that costs next to nothing.

    A walk reads a `View`: rows and counters as one commit left them, so that commits may go on meanwhile.
    """

    def __init__(self, layer: Layer, counters: Counters, topic: str) -> None:
        self._layer = layer
        self._counters = counters
        self._topic = topic
        self._walks: dict[int, Walk] = {}
        self._began_ms: dict[int, int] = {}
        self._listed: dict[int, tuple[Numbers, dict[str, int]]] = {}
        self._of_rows: dict[int, tuple[Break, ...]] = {}
        self._checked: dict[int, Checked] = {}

    @property
    def topic(self) -> str:
        """The full name of `payments`."""
        return self._topic

    def tasks(self) -> list[Checked]:
        """What is known of the tasks here, by partition."""
        return [checked for _, checked in sorted(self._checked.items())]

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.run_once(now_ms())
        finally:
            self._forget(list(self._walks))

    async def run_once(self, at_ms: int) -> None:
        """Look at each task here."""
        here = self._layer.running_partitions()
        self._forget({*self._checked, *self._walks, *self._began_ms} - set(here))
        for partition in here:
            await self._walk(partition, at_ms)
            self._check(partition, at_ms)

    def _forget(self, partitions: Iterable[int]) -> None:
        """Their next owner audits them; where that is this worker again, from the beginning."""
        for partition in partitions:
            walk = self._walks.pop(partition, None)
            if walk is not None:
                walk.view.close()
            self._checked.pop(partition, None)
            self._began_ms.pop(partition, None)
            self._of_rows.pop(partition, None)
            self._listed.pop(partition, None)

    def _check(self, partition: int, at_ms: int, walked: Walk | None = None) -> None:
        """Compare the counters among themselves; keep what the last walk has found."""
        try:
            numbers = self._counters.of(partition)
        except LookupError:
            return  # it closes this moment
        before = self._checked.get(partition)
        rows, rows_at = (before.rows, before.rows_at_ms) if before else (None, 0)
        if walked is not None:
            rows, rows_at = walked.rows, walked.began_ms
        listed = self._listed.get(partition)
        still = open_now(numbers, *listed) if listed is not None else {}
        breaks = (*breaks_of_counters(numbers, self._topic), *self._of_rows.get(partition, ()))
        self._checked[partition] = Checked(
            partition=partition, numbers=numbers, at_ms=at_ms, rows=rows, rows_at_ms=rows_at, open=still,
            breaks=breaks,
        )  # fmt: skip
        _tell(partition, set(before.breaks) if before else set(), breaks)

    async def _walk(self, partition: int, at_ms: int) -> None:
        """Go on with the walk through a task's rows, or begin one if it is time."""
        walk = self._walks.get(partition)
        if walk is None:
            if at_ms - self._began_ms.get(partition, 0) < ROUND_EVERY_MS:
                return
            view = await self._layer.view(partition, ["charges", "open_payments", self._counters.name])
            if view is None:
                return
            self._began_ms[partition] = at_ms
            walk = self._walks[partition] = Walk(view, at_ms)
        try:
            through = await asyncio.to_thread(walk.go_on, self._counters.name, ROWS_PER_LOOK)
        except StoreFailed:  # a disk that cannot be read stops the task at its next read
            self._forget([partition])
            return
        if self._walks.get(partition) is not walk:
            return
        if walk.listed is not None:
            self._listed[partition] = walk.numbers or {}, walk.listed
        if through:
            del self._walks[partition]
            walk.view.close()
            self._of_rows[partition] = tuple(breaks_of_rows(walk.numbers or {}, walk.rows, self._topic))
            self._check(partition, at_ms, walk)


def _tell(partition: int, before: set[Break], now: Iterable[Break]) -> None:
    """Log a break once, at its beginning or when its figures change."""
    for found in now:
        if found not in before:
            logger.error("live audit: task %d: %s", partition, found)


def as_json(checked: Checked, topic: str) -> dict[str, Any]:
    """One task for those who read `/audit`; `topic` is the full name of `payments`."""
    return {
        "partition": checked.partition,
        "checked_at": checked.at_ms,
        "rows_at": checked.rows_at_ms,
        "payments": answered(checked.numbers, topic).as_json(),
        "outcomes": breakdown(checked.numbers, topic).as_json(),
        "counters": dict(checked.numbers),
        "open": dict(checked.open),
        "breaks": [found._asdict() for found in checked.breaks],
    }
