"""A unit of work: all that handling one source event does, held back until its commit."""

from collections.abc import Callable, Sequence
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


Change = tuple[bytes | None, "Unit"]
"""An uncommitted value of a table key (None: deleted), the unit that wrote it."""
Uncommitted = dict[str, dict[bytes, Change]]
"""By table, by key: every table of the task has its dict."""
Write = tuple[str, bytes, bytes | None]
"""Table, key, value (None: deleted)."""
Look = Callable[[bytes], bytes | None]
"""Looks for the committed value of a key."""
Counted = tuple[tuple[str, int], ...]
"""Names with what is added to each."""


class UnitTask(Protocol):
    """What a unit needs of its task: the values that are not committed, and those that are."""

    partition: int
    uncommitted: Uncommitted
    committed: dict[str, Look]
    """By table what looks for a committed value: `committed_value` without its call."""

    def committed_value(self, table: str, key: bytes) -> bytes | None:
        """The value in RocksDB."""

    def committed_items(self, table: str, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """Committed keys and values of a table behind a key, in key order."""


class Unit:
    """Everything that handling one event sends or writes (point 1 of the contract).

    `number` is the task-wide admission number; `previous` the unit of the same key before it as long as that
    one is uncommitted; `successor` the next one of the key, with its handler and share, that waits for this
    one; `first_delivery` is True if no handler can have seen the event before, in whatever worker; `counted`
    is what it adds to the task's counters: for each call the table with its names and numbers. These are
    tuples, which the garbage collector leaves alone, as a backlog keeps many units alive: a dict of pairs
    took a tenth more. `reports` is what is reported once the unit is committed, likewise in tuples. `ended`
    is called once its handler has come to its end, tries included. `size` is counted in the worker's bound;
    `added` will be, once the handler has ended.
    """

    __slots__ = (
        "added", "committed", "counted", "ended", "event", "finished", "number", "previous", "sends", "size",
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
        self.successor: tuple[Unit, Any, Any] | None = None
        self.ended: Callable[[], None] | None = None
        self.sends: list[Outgoing] = []
        self.writes: list[Write] = []
        self.undo: dict[tuple[str, bytes], Change] | None = None
        self.counted: tuple[tuple[str, Counted], ...] = ()
        self.reports: tuple[tuple[Any, ...], ...] = ()
        self.finished = False
        self.committed = False
        self.size = len(event.value) if event.value is not None else 0
        self.added = 0

    def send(self, record: Outgoing) -> None:
        """Add a record; nothing reaches Kafka before the commit."""
        self.sends.append(record)
        if record.value is not None:
            self.added += len(record.value)

    def read(self, table: str, key: bytes) -> bytes | None:
        """The newest value this unit may see: its task's uncommitted one, else the committed one."""
        change = self.task.uncommitted[table].get(key)
        return self.task.committed_value(table, key) if change is None else change[0]

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        """Set (None: delete) an uncommitted value; it reaches RocksDB after the commit."""
        fresh = self.task.uncommitted[table]
        if key in fresh:
            self.replaces(table, key, fresh[key])
        self.writes.append((table, key, value))
        fresh[key] = value, self
        if value is not None:
            self.added += len(value)

    def replaces(self, table: str, key: bytes, before: Change) -> None:
        """Note an earlier unit's value that is about to be replaced: it stands again if this unit fails."""
        if before[1] is not self:
            self.undo = self.undo or {}
            self.undo[table, key] = before

    def count(self, table: str, name: str, number: int) -> None:
        """Add to a number of a table of counters; a commit sums up what its units have added."""
        self.counted += ((table, ((name, number),)),)

    def report(self, *facts: Any) -> None:
        """Have `Options.on_committed` called with these once the unit is committed, else never."""
        self.reports += (facts,)

    tell = report  # as releases before 0.1 had it

    @property
    def surely_first(self) -> bool:
        """`first_delivery`, as releases before 0.1 had it."""
        return self.first_delivery

    def empty(self) -> None:
        """Take back everything this unit did, so that its handler can run again (point 9e)."""
        self.first_delivery = False
        undo = self.undo or {}
        for table, key, _ in self.writes:
            before, fresh = undo.get((table, key)), self.task.uncommitted[table]
            if before is None or before[1].committed:
                fresh.pop(key, None)
            else:
                fresh[key] = before
        self.undo = None
        self.writes.clear()
        self.counted = ()
        self.reports = ()
        self.sends.clear()
        self.added = 0


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
