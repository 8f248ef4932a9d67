"""Remembers what the files of one split report held: the last file counts all of them."""

from __future__ import annotations

import sqlite3
from collections import Counter

import orjson

from streamsocial_billing.gateways.errors import InputRefused

Sums = Counter[tuple[str, int]]
"""By currency and column of the totals, as the file writes them."""


class PartsMissing(InputRefused):
    """Raised for the last file of a report whose other files were not loaded yet."""


class KeptParts:
    """The files of split reports that were loaded, by report and number; inside the run's transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def keep(self, report: str, number: int, rows: int, sums: Sums) -> None:
        """Remember one file."""
        told = [rows, [[code, column, amount] for (code, column), amount in sorted(sums.items())]]
        row = report, number, orjson.dumps(told).decode()
        self._db.execute("INSERT OR REPLACE INTO kept.parts VALUES (?, ?, ?)", row)

    def before(self, report: str, number: int) -> tuple[int, Sums] | None:
        """Rows and sums of the files 1 to `number` - 1 of a report; None unless all of them were loaded."""
        asked = "SELECT sums FROM kept.parts WHERE report = ? AND number BETWEEN 1 AND ?"
        found = self._db.execute(asked, (report, number - 1)).fetchall()
        if len(found) != number - 1:
            return None
        rows, sums = 0, Sums()
        for (text,) in found:
            count, amounts = orjson.loads(text)
            rows += count
            for code, column, amount in amounts:
                sums[code, column] += amount
        return rows, sums
