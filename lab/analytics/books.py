"""Revenue in SQLite, in one transaction with the offsets that it comes from."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.analytics.movements import Movement

Place = tuple[str, int]
"""Topic without a prefix, partition."""
Line = tuple[int, str, str, int, int]
"""Minute (ms since the epoch), product, currency, charged, refunded minor units."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS revenue (
    topic TEXT, minute INTEGER, product TEXT, currency TEXT,
    charged_minor INTEGER NOT NULL DEFAULT 0, refunded_minor INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, minute, product, currency)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
"""
_ADD: Final = """
INSERT INTO revenue VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    charged_minor = charged_minor + excluded.charged_minor,
    refunded_minor = refunded_minor + excluded.refunded_minor
"""
_BEGIN_AT: Final = "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_MOVE_ON: Final = "UPDATE positions SET next_offset = ? WHERE topic = ? AND partition = ? AND next_offset = ?"


class Overtaken(Exception):
    """Raised when another process has written since this one read its positions: start again from them."""


@dataclass(slots=True)
class Stretch:
    """Records of one place that were read in a row, from the stored position on.

    start  the position stored before; None: none was
    next   the offset to read from afterwards
    """

    start: int | None
    next: int
    movements: list[Movement]


class RevenueBooks:
    """The database. One process writes it; others may read it meanwhile."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        # after a power cut WAL may lack the last transactions, whole: their records are read again
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA busy_timeout = 5000")
        self._db.executescript(_SCHEMA)

    def positions(self) -> dict[Place, int]:
        """Where to read on; places that are not here were never read."""
        found = self._db.execute("SELECT topic, partition, next_offset FROM positions")
        return {(topic, partition): offset for topic, partition, offset in found}

    def add(self, stretches: Mapping[Place, Stretch]) -> None:
        """Count what moved and move the positions on: both or, whenever the process dies, neither.

        Raises Overtaken, having changed nothing, if a position is not where the stretch begins.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for place, stretch in stretches.items():
                self._move_on(place, stretch)
                self._db.executemany(_ADD, _sums(place[0], stretch.movements))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _move_on(self, place: Place, stretch: Stretch) -> None:
        if stretch.start is None:
            done = self._db.execute(_BEGIN_AT, (*place, stretch.next))
        else:
            done = self._db.execute(_MOVE_ON, (stretch.next, *place, stretch.start))
        if done.rowcount != 1:
            raise Overtaken(f"another process has read {place[0]}-{place[1]} on")

    def lines(self, topic: str) -> list[Line]:
        """Revenue by minute, product, currency as this topic has it."""
        return self._db.execute(
            "SELECT minute, product, currency, charged_minor, refunded_minor FROM revenue WHERE topic = ? "
            "ORDER BY minute, product, currency", (topic,),
        ).fetchall()  # fmt: skip

    def totals(self, topic: str) -> dict[str, tuple[int, int]]:
        """Charged and refunded minor units by currency."""
        totals: dict[str, tuple[int, int]] = {}
        for _, _, currency, charged, refunded in self.lines(topic):
            before = totals.get(currency, (0, 0))
            totals[currency] = before[0] + charged, before[1] + refunded
        return totals

    def revenue(self, topic: str) -> dict[str, int]:
        """Charged less refunded minor units by currency."""
        return {one: charged - refunded for one, (charged, refunded) in self.totals(topic).items()}

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _sums(topic: str, movements: Iterable[Movement]) -> list[tuple[str, int, str, str, int, int]]:
    """One row for each minute, product, currency."""
    sums: dict[tuple[int, str, str], list[int]] = {}
    for one in movements:
        both = sums.setdefault((one.minute, one.product, one.currency), [0, 0])
        both[one.action == "refund"] += one.amount_minor
    return [(topic, *key, charged, refunded) for key, (charged, refunded) in sums.items()]
