"""The scheduler of renewals: says which subscriptions are due.

The keys of a table begin with their owner, so no table is in the order of time. A heap in memory of a million
entries would cost 100 MB and a walk at each takeover, to be exact to the second where nobody needs it: an
order that is due at once is carried out in its own unit, nearly all else comes due a day or more after it was
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from streamsocial_billing.subscriptions.renewal import is_due
from streamsocial_billing.timers.table_scan import Row, TableScan
from tables.subscriptions import read_subscription

TRIGGERS_PER_LOOK: Final = 50
"""Per task: the renewals of the first of a month must overrun neither a gateway nor those who pay then."""


class RenewalTimer(TableScan):
    """Walks round and round through the subscriptions of the tasks here; triggers those that are due."""

    table = "subscriptions"
    kind = "subscription"
    rows_per_look: ClassVar[int] = 1_000
    """Of a million in 8 tasks each is seen every two minutes."""
    trigger_again_after_ms: ClassVar[int] = 60_000

    def due(self, partition: int, rows: Sequence[Row], at_ms: int) -> list[str]:
        """Walk on until the look's measure is full, of what was looked at or of what is due."""
        due: list[str] = []
        for key, value in rows:
            if not self.was_triggered(key) and is_due(read_subscription(value), at_ms):
                due.append(key)
                if len(due) == TRIGGERS_PER_LOOK:
                    self.go_on_after(partition, key)
                    break
        return due
