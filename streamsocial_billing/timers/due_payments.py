"""Nudges the open payments whose next try is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from faust_exactly_once import Layer, Nudger
from streamsocial_billing.payments.open_payments import Census
from streamsocial_billing.timers.table_scan import Row, TableScan
from tables.open_payments import OpenPayment, read_open_payment

NUDGES_PER_LOOK: Final = 500
"""Per task: a long outage must not flood the source topic."""


class DueTimer(TableScan):
    """Looks every second at the open payments of the tasks here; nudges those that are due.

    `takes` says how many calls a gateway takes now: nobody is nudged towards one that takes none, so a long
    outage costs nothing, and what has become due meanwhile is nudged as soon as it is back. `census` counts
    what the timer walks past.
    """

    table = "open_payments"
    rows_per_look: ClassVar[int] = 2_000
    nudge_again_after_ms: ClassVar[int] = 5_000

    def __init__(
        self, layer: Layer, nudger: Nudger, takes: Callable[[str], float] = lambda gateway: math.inf,
        census: Census | None = None,
    ) -> None:  # fmt: skip
        super().__init__(layer, nudger)
        self._takes = takes
        self._census = census or Census()
        self._room: dict[str, float] = {}

    def begin_look(self) -> None:
        """What a gateway takes is asked once in a look, for all tasks."""
        self._room = {}

    def due(self, partition: int, rows: Sequence[Row], at_ms: int) -> list[str]:
        """What is due and was not nudged a moment ago, up to the room at its gateway."""
        listed = [(key, read_open_payment(value)) for key, value in rows]
        self._census.saw(partition, (row for _, row in listed), whole=len(rows) < self.rows_per_look)
        due: list[str] = []
        for key, row in listed:
            if not _is_due(row, at_ms) or self.was_nudged(key):
                continue
            gateway = row.get("gateway", "")  # earlier releases did not write it
            left = self._room[gateway] if gateway in self._room else self._takes(gateway)
            if left > 0 and len(due) < NUDGES_PER_LOOK:
                due.append(key)
                left -= 1
            self._room[gateway] = left
        return due


def _is_due(listed: OpenPayment, at_ms: int) -> bool:
    due_at = listed["next_try_at"]
    return due_at is not None and due_at <= at_ms
