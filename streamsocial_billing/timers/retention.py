"""Triggers what is kept longer than it has to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from faust_exactly_once import Layer, TriggerWriter
from streamsocial_billing.payments.retention import is_over
from streamsocial_billing.timers.table_scan import Row, TableScan
from tables.payments import entry_of


def _is_over(value: bytes, at_ms: int) -> bool:
    return is_over(entry_of(value), at_ms)


class RetentionTimer(TableScan):
    """Walks slowly through a table of the tasks here; triggers the keys whose retention is over.

    `over` gets a committed value and ms since the epoch; `kind` is the kind of the triggers.
    """

    rows_per_look: ClassVar[int] = 100
    """Of each task: ten million entries are seen in half a day."""
    round_every_ms: ClassVar[int] = 3_600_000

    def __init__(
        self, layer: Layer, triggers: TriggerWriter, table: str = "payments",
        over: Callable[[bytes, int], bool] = _is_over, kind: str = "payment",
    ) -> None:  # fmt: skip
        super().__init__(layer, triggers)
        self.table, self.kind = table, kind
        self._over = over

    def due(self, partition: int, rows: Sequence[Row], at_ms: int) -> list[str]:
        """Those whose retention is over."""
        return [key for key, value in rows if self._over(value, at_ms)]
