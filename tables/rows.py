"""Rows as they are read: checked against their type, with all that they hold."""

from __future__ import annotations

from typing import Any

import msgspec


class InvalidRow(ValueError):
    """Raised when a row is not what its table holds: the task stops, as no code here could go on with it."""


def checked(table: str, key: str, row: Any, kind: type) -> Any:
    """The row itself, fields of a newer release with it; raises InvalidRow.

    Nothing of the row is in the text but names and types.
    """
    try:
        msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise InvalidRow(f"{table}[{key!r}] cannot be read: {error}") from None
    return row


class Rows:
    """A table whose rows are checked when they are read; else the table itself.

    Rows stay mappings, typed by a TypedDict: fields that this release does not know stay where they are, and
    what is not changed is written as it was.
    """

    def __init__(self, table: Any, kind: type) -> None:
        self.table = table
        self._kind = kind

    def get(self, key: str, default: Any = None) -> Any:
        """The row, or the default; raises InvalidRow, else as the table does."""
        row = self.table.get(key)
        return default if row is None else checked(self.table.name, key, row, self._kind)

    def __getitem__(self, key: str) -> Any:
        return checked(self.table.name, key, self.table[key], self._kind)

    def __setitem__(self, key: str, row: Any) -> None:
        self.table[key] = row

    def __delitem__(self, key: str) -> None:
        del self.table[key]

    def __contains__(self, key: object) -> bool:
        return key in self.table

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)

