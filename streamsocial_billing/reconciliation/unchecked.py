"""What a run cannot check: money at gateways that are not set up here. It is named, never dropped."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

_RESULTS: Final = "SELECT gateway, count(*) FROM a GROUP BY 1"
_LINES: Final = "SELECT gateway, count(*) FROM kept.lines GROUP BY 1"
_MONEY: Final = """
SELECT gateway, currency, sum(amount * moved) FROM a
WHERE action = 'charge' AND moved > 0 GROUP BY 1, 2 ORDER BY 1, 2"""


@dataclass(frozen=True, slots=True)
class NotChecked:
    """A gateway that is not set up here, with what our side has of it.

    payments  with a result in our books
    lines     of settlement files
    money     charged by our books, minor units by currency
    """

    gateway: str
    payments: int
    lines: int
    money: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """In `summary.json` and in the record of the run."""
        return asdict(self)


def not_checked(db: sqlite3.Connection, gateways: Collection[str]) -> list[NotChecked]:
    """Everything of gateways other than these."""
    payments, lines = dict(db.execute(_RESULTS).fetchall()), dict(db.execute(_LINES).fetchall())
    money: dict[str, dict[str, int]] = {}
    for name, currency, amount in db.execute(_MONEY):
        money.setdefault(name, {})[currency] = amount
    absent = sorted((payments.keys() | lines.keys()) - set(gateways))
    return [
        NotChecked(name, payments.get(name, 0), lines.get(name, 0), money.get(name, {})) for name in absent
    ]
