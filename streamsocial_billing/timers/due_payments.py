"""Triggers the open payments whose next try is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from faust_exactly_once import Layer, TriggerWriter
from streamsocial_billing.payments.open_payments import OpenPaymentCounts
from streamsocial_billing.timers.table_scan import Row, TableScan
from tables.open_payments import OpenPayment, read_open_payment

TRIGGERS_PER_LOOK: Final = 500
"""Per task: a long outage must not flood the source topic."""


class DueTimer(TableScan):
    """Looks every second at the open payments of the tasks here; triggers those that are due.

    `permits` says how many calls a gateway takes now: nobody is triggered towards one that takes none, so a
    long outage costs nothing, and what has become due meanwhile is triggered as soon as it is back.
    `open_counts` counts what the timer walks past.
    """

    table = "open_payments"
    rows_per_look: ClassVar[int] = 2_000
    trigger_again_after_ms: ClassVar[int] = 5_000

    def __init__(
        self, layer: Layer, triggers: TriggerWriter,
        permits: Callable[[str], float] = lambda gateway: math.inf,
        open_counts: OpenPaymentCounts | None = None,
    ) -> None:  # fmt: skip
        super().__init__(layer, triggers)
        self._permits = permits
        self._open_counts = open_counts or OpenPaymentCounts()
        self._permits_left: dict[str, float] = {}

    def begin_look(self) -> None:
        """What a gateway takes is asked once in a look, for all tasks."""
        self._permits_left = {}

    def due(self, partition: int, rows: Sequence[Row], at_ms: int) -> list[str]:
        """What is due and was not triggered a moment ago, up to what its gateway takes."""
        listed = [(key, read_open_payment(value)) for key, value in rows]
        self._open_counts.saw(partition, (row for _, row in listed), whole=len(rows) < self.rows_per_look)
        due: list[str] = []
        for key, row in listed:
            if not _is_due(row, at_ms) or self.was_triggered(key):
                continue
            gateway = row.get("gateway", "")  # earlier releases did not write it
            left = self._permits_left[gateway] if gateway in self._permits_left else self._permits(gateway)
            if left > 0 and len(due) < TRIGGERS_PER_LOOK:
                due.append(key)
                left -= 1
            self._permits_left[gateway] = left
        return due


def _is_due(listed: OpenPayment, at_ms: int) -> bool:
    due_at = listed["next_try_at"]
    if due_at is None:  # parked, or its intent waits for its customer
        due_at = listed.get("look_at")
    return due_at is not None and due_at <= at_ms
