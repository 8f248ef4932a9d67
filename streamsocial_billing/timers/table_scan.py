"""Walks through a table of the tasks here, some rows a second, and triggers the keys that are due."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from faust_exactly_once import Layer, TriggerWriter
from streamsocial_billing.domain.events import RetryTrigger
from streamsocial_billing.domain.times import now_ms

LOOK_EVERY_S: Final = 1.0
Row = tuple[str, bytes]
"""A key with its committed value."""


class TableScan(ABC):
    """A timer over one table; what is its own says which rows of a look are due.

    It keeps nothing that could be lost, and need not be exact: what a trigger does is decided in its unit.

    table                 the table's name
    kind                  the kind of its triggers
    rows_per_look         of each task
    round_every_ms        the next walk through a task begins so long after the last one did, at the earliest
    trigger_again_after_ms  how long a key that was triggered is left alone
    """

    table: str
    kind: str = "payment"
    rows_per_look: ClassVar[int]
    round_every_ms: ClassVar[int] = 0
    trigger_again_after_ms: ClassVar[int] = 0

    def __init__(self, layer: Layer, triggers: TriggerWriter) -> None:
        self._layer = layer
        self._triggers = triggers
        self._triggered_at: dict[str, int] = {}
        self._looked_to: dict[int, str] = {}
        self._round_began: dict[int, int] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.run_once(now_ms())

    async def run_once(self, at_ms: int) -> int:
        """Look at the next rows of each task here; returns how many triggers were appended."""
        kept_ms = self.trigger_again_after_ms
        self._triggered_at = {key: at for key, at in self._triggered_at.items() if at_ms - at < kept_ms}
        self.begin_look()
        sent = 0
        for partition in self._layer.running_partitions():
            await asyncio.sleep(0)  # payments go on between one task and the next
            due = self.due(partition, self._next_rows(partition, at_ms), at_ms)
            if due:
                await self._triggers.append(partition, [trigger_for(key, self.kind) for key in due])
                self._triggered_at.update(dict.fromkeys(due, at_ms))
                sent += len(due)
        return sent

    def begin_look(self) -> None:  # noqa: B027 - most timers have nothing to begin
        """Called before the first task of each look."""

    @abstractmethod
    def due(self, partition: int, rows: Sequence[Row], at_ms: int) -> list[str]:
        """The keys to trigger among the next rows of a task."""

    def was_triggered(self, key: str) -> bool:
        """True if this key was triggered a moment ago."""
        return key in self._triggered_at

    def go_on_after(self, partition: int, key: str) -> None:
        """Let the next look at this task begin here: what comes after it was not looked at."""
        self._looked_to[partition] = key

    def _next_rows(self, partition: int, at_ms: int) -> list[Row]:
        """The next rows of a task, round and round: what stays as it is must not hide others."""
        after = self._looked_to.get(partition, "")
        if not after:
            if at_ms - self._round_began.get(partition, 0) < self.round_every_ms:
                return []
            self._round_began[partition] = at_ms
        rows = self._layer.committed_items(partition, self.table, self.rows_per_look, after)
        self._looked_to[partition] = rows[-1][0] if len(rows) == self.rows_per_look else ""
        return rows


def trigger_for(key: str, kind: str) -> tuple[bytes, bytes]:
    """Key and value of the trigger for a table key: `user_id/payment_id`, or what stands in its place."""
    user_id, _, named = key.partition("/")
    return user_id.encode(), RetryTrigger(user_id, named, kind).to_bytes()
