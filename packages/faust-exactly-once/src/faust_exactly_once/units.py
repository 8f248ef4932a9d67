"""A unit of work: all that handling one source event does, held back until its commit."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from .errors import NoUnit

Headers = Sequence[tuple[str, bytes]]


class Event(Protocol):
    """A source record as a handler sees it: raw bytes, offsets, timestamps in ms since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Outgoing(NamedTuple):
    """A record that a unit sends; `partition` None means murmur2 of the key, as in Java."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers | None = None
    timestamp_ms: int | None = None


class Change(NamedTuple):
    """An uncommitted value of a table key with the unit that wrote it (None value: deleted)."""

    value: bytes | None
    writer: "Unit"


TableKey = tuple[str, bytes]


class UnitTask(Protocol):
    """What a unit needs of its task: the values that are not committed, and those that are."""

    partition: int
    uncommitted: dict[TableKey, Change]

    def committed_value(self, table: str, key: bytes) -> bytes | None:
        """The value in RocksDB."""

    def committed_items(self, table: str, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """Committed keys and values of a table behind a key, in key order."""


class Unit:
    """Everything that handling one event sends or writes (point 1 of the contract).

    `number` is the task-wide admission number; `previous` the unit of the same key before it as long as
    that one is uncommitted; `successor` the next one of the key, with its handler, that waits for this one;
    `first_delivery` is True if no handler can have seen the event before, in whatever worker; `counted` is
    what it adds to the task's counters: table, name, number, and so on. It is a flat tuple, which the
    garbage collector leaves alone, as a backlog keeps many units alive: a dict of pairs took a tenth more.
    `reports` is what `Options.on_committed` gets once the unit is committed, likewise in tuples.
    """

    __slots__ = (
        "committed", "counted", "event", "finished", "number", "previous", "sends", "size",
        "successor", "first_delivery", "task", "reports", "undo", "writes",
    )  # fmt: skip

    def __init__(
        self, task: UnitTask, event: Any, number: int, previous: "Unit | None", first_delivery: bool
    ) -> None:
        self.task = task
        self.event = event
        self.number = number
        self.previous = previous
        self.first_delivery = first_delivery
        self.successor: tuple[Unit, Any] | None = None
        self.sends: list[Outgoing] = []
        self.writes: dict[TableKey, bytes | None] = {}
        self.undo: dict[TableKey, Change | None] = {}
        self.counted: tuple[Any, ...] = ()
        self.reports: tuple[tuple[Any, ...], ...] = ()
        self.finished = False
        self.committed = False
        self.size = len(event.value) if event.value is not None else 0

    def send(self, record: Outgoing) -> None:
        """Add a record; nothing reaches Kafka before the commit."""
        self.sends.append(record)

    def read(self, table: str, key: bytes) -> bytes | None:
        """The newest value this unit may see: its task's uncommitted one, else the committed one."""
        change = self.task.uncommitted.get((table, key))
        return self.task.committed_value(table, key) if change is None else change.value

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        """Set (None: delete) an uncommitted value; it reaches RocksDB after the commit."""
        where = (table, key)
        if where not in self.undo:
            self.undo[where] = self.task.uncommitted.get(where)
        self.writes[where] = value
        self.task.uncommitted[where] = Change(value, self)

    def count(self, table: str, name: str, number: int) -> None:
        """Add to a number of a table of counters; a commit sums up what its units have added."""
        self.counted += (table, name, number)

    def report(self, *facts: Any) -> None:
        """Have `Options.on_committed` called with these once the unit is committed, else never."""
        self.reports += (facts,)

    tell = report  # as releases before 0.1 had it

    @property
    def surely_first(self) -> bool:
        """`first_delivery`, as releases before 0.1 had it."""
        return self.first_delivery

    def count_what_it_did(self) -> int:
        """Add what the finished unit sends or writes to its size.

        Returns:
            the bytes that were added.
        """
        did = 0
        for record in self.sends:
            did += len(record.value or b"")
        for value in self.writes.values():
            did += len(value or b"")
        self.size += did
        return did

    def empty(self) -> None:
        """Take back everything this unit did, so that its handler can run again (point 9e)."""
        self.first_delivery = False
        for where, before in self.undo.items():
            if before is None or before.writer.committed:
                self.task.uncommitted.pop(where, None)
            else:
                self.task.uncommitted[where] = before
        self.undo.clear()
        self.writes.clear()
        self.counted = ()
        self.reports = ()
        self.sends.clear()


_current: ContextVar[Unit | None] = ContextVar("exactly_once_unit", default=None)
set_current_unit = _current.set
find_unit = _current.get
"""The unit of the handler that is running, or None outside any handler."""


def current_unit() -> Unit:
    """The unit of the handler that is running.

    Raises:
        NoUnit: outside a handler, or when the handler's task was closed meanwhile.
    """
    unit = _current.get()
    if unit is None:
        raise NoUnit("this needs a handler's unit: outside one, nothing could be in its transaction")
    if unit.finished:
        raise NoUnit("the handler of this unit has ended: a background task must not write into it")
    return unit
