"""The scheduler of renewals: says which subscriptions are due.

It walks through the table, as the sweep does, and appends a nudge for what is due. What is sent is decided
in the nudge's unit, so the scheduler keeps nothing that could be lost, and need not be exact. The keys of a
table begin with their owner, so no table is in the order of time. A heap in memory of a million entries would
cost 100 MB and a walk at each takeover, to be exact to the second where nobody needs it: an order that is due
at once is carried out in its own unit, nearly all else comes due a day or more after it was written.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson

from faust_exactly_once import Layer, Nudger
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.payments.retention import hint
from streamsocial_billing.subscriptions.renewal import is_due

LOOK_EVERY_S: Final = 1.0
LOOKED_AT: Final = 1_000
"""Subscriptions per task at one look: of a million in 8 tasks each is seen every two minutes."""
NUDGES_PER_LOOK: Final = 50
"""Per task: the renewals of the first of a month must overrun neither a gateway nor those who pay then."""
NUDGE_AGAIN_AFTER_MS: Final = 60_000


class RenewalTimer:
    """Walks round and round through the subscriptions of the tasks here; nudges those that are due."""

    def __init__(self, layer: Layer, nudger: Nudger) -> None:
        self._layer = layer
        self._nudger = nudger
        self._nudged_at: dict[str, int] = {}
        self._looked_to: dict[int, str] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.run_once(now_ms())

    async def run_once(self, at_ms: int) -> int:
        """Nudge what is due among the next subscriptions of each task.

        Returns:
            how many nudges were appended.
        """
        self._nudged_at = {k: at for k, at in self._nudged_at.items() if at_ms - at < NUDGE_AGAIN_AFTER_MS}
        sent = 0
        for partition in self._layer.running_partitions():
            await asyncio.sleep(0)  # payments go on between one task and the next
            due = self._next_due(partition, at_ms)
            if due:
                await self._nudger.append(partition, [hint(key, "subscription") for key in due])
                self._nudged_at.update(dict.fromkeys(due, at_ms))
                sent += len(due)
        return sent

    def _next_due(self, partition: int, at_ms: int) -> list[str]:
        """Walk on until the look's measure is full, of what was looked at or of what is due."""
        after, due = self._looked_to.get(partition, ""), []
        items = self._layer.committed_items(partition, "subscriptions", LOOKED_AT, after)
        self._looked_to[partition] = items[-1][0] if len(items) == LOOKED_AT else ""
        for key, value in items:
            if key not in self._nudged_at and is_due(orjson.loads(value), at_ms):
                due.append(key)
                if len(due) == NUDGES_PER_LOOK:
                    self._looked_to[partition] = key
                    break
        return due
