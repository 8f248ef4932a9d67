"""Rows as they are read: checked against their type, with all that they hold."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NotRequired, TypeVar, get_args, get_origin, get_type_hints

import msgspec

Row = TypeVar("Row")


class InvalidRow(ValueError):
    """Raised when a row is not what its table holds: the task stops, as no code here could go on with it."""


def checked(name: str, row: Any, kind: type) -> Any:
    """The row itself, fields of a newer release with it; raises InvalidRow.

    `name` is for people. `kind` as `kind_of_rows` gives it. Of the row the text has names and types alone.
    """
    try:
        msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise InvalidRow(f"{name} cannot be read: {error}") from None
    return row


def kind_of_rows(row: type, left_out: Collection[str] = ()) -> type:
    """What `checked` compares rows with, of their TypedDict; `left_out`: fields that a row may not have.

    A struct: against it a row is checked in a third of the time.
    """
    needed: list[tuple[str, Any]] = []
    other: list[tuple[str, Any, Any]] = []
    for name, hint in get_type_hints(row, include_extras=True).items():
        if get_origin(hint) is NotRequired:
            other.append((name, get_args(hint)[0] | msgspec.UnsetType, msgspec.UNSET))
        elif name in left_out:
            other.append((name, hint | msgspec.UnsetType, msgspec.UNSET))
        else:
            needed.append((name, hint))
    return msgspec.defstruct(row.__name__, [*needed, *other], gc=False)


def reader_of(name: str, row: type[Row]) -> Callable[[bytes], Row]:
    """Reads rows of a table from their bytes, on a disk or a changelog, as the table's own rows are read.

    `name` is for people. The reader raises InvalidRow.
    """
    kind = kind_of_rows(row)

    def read(value: bytes) -> Row:
        return checked(name, decoded(name, value), kind)  # type: ignore[no-any-return]

    return read


def decoded(name: str, value: bytes) -> Any:
    """What a row's bytes hold as JSON; raises InvalidRow."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise InvalidRow(f"{name} cannot be read: {error}") from None


class Rows:
    """A table whose rows are checked when they are read; else the table itself.

    Rows stay mappings, typed by a TypedDict: fields that this release does not know stay where they are, and
    what is not changed is written as it was.
    """

    def __init__(self, table: Any, kind: type) -> None:
        self.table = table
        self._kind = kind_of_rows(kind)

    def get(self, key: str, default: Any = None) -> Any:
        """The row, or the default; raises InvalidRow, else as the table does."""
        row = self.table.get(key)
        if row is None:
            return default
        try:
            msgspec.convert(row, self._kind)
        except msgspec.ValidationError:
            self._checked(key, row)  # says it
        return row

    def __getitem__(self, key: str) -> Any:
        return self._checked(key, self.table[key])

    def __setitem__(self, key: str, row: Any) -> None:
        self.table[key] = row

    def __delitem__(self, key: str) -> None:
        del self.table[key]

    def __contains__(self, key: object) -> bool:
        return key in self.table

    def _checked(self, key: str, row: Any) -> Any:
        try:
            return checked(self.table.name, row, self._kind)
        except InvalidRow as error:
            raise InvalidRow(f"{error} ({key})") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)

