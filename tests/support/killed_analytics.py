"""Runs the analytics consumer, which kills itself at a named point of its database transaction.

`python -P killed_analytics.py POINT N ARGUMENTS...`: at the N-th time, by SIGKILL, no clean-up of any kind.
POINT: `begin`, `move_on` (positions moved, revenue not), `add`, `before_commit`, `after_commit`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from itertools import count
from typing import Any

from lab.analytics import __main__ as program
from lab.analytics import books

AFTER = {"begin": "BEGIN", "move_on": "UPDATE positions", "after_commit": "COMMIT"}
POINT, AT = sys.argv[1], int(sys.argv[2])
_reached = count(1)


def _at(point: str) -> None:
    if point == POINT and next(_reached) == AT:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledConnection(sqlite3.Connection):
    """SQLite's own, with the points around its statements."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """As SQLite does, with the points before a commit and after each statement."""
        if sql == "COMMIT":
            _at("before_commit")
        done = super().execute(sql, *args)
        for point, begins in AFTER.items():
            if sql.startswith(begins):
                _at(point)
        return done

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """As SQLite does, with the point after rows were added."""
        done = super().executemany(sql, *args)
        _at("add")
        return done


def _connect(path: Any, **options: Any) -> sqlite3.Connection:
    return sqlite3.connect(path, factory=KilledConnection, **options)


class _Sqlite:
    connect = staticmethod(_connect)


def take_effect() -> None:
    """From now on the database of this process has the points."""
    setattr(books, "sqlite3", _Sqlite)  # noqa: B010 - the program has no switch for it


if __name__ == "__main__":
    del sys.argv[1:3]
    take_effect()
    sys.exit(program.main())
