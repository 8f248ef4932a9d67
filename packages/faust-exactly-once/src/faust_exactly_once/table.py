"""Tables whose reads and writes go through the handler's unit."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import faust
import orjson

from .errors import ForeignKey, NoUnit, RecordTooLarge
from .layer import Layer
from .router import partition_of
from .units import Unit, find_unit

Owner = Callable[[str], str]


def before_slash(table_key: str) -> str:
    """The default owner of a table key: its part before the first `/`."""
    return table_key.partition("/")[0]


class Table(faust.Table):  # type: ignore[type-arg]
    """A changelog-backed table of JSON values under text keys.

    Inside a handler reads see the task's uncommitted writes, writes join the handler's unit; a key whose
    owner is not the event's message key is refused. Values are serialised when they are set, decoded afresh
    at each get: nobody shares a mutable object. Outside a handler only committed values are read, of tasks
    that this worker owns and has recovered; nothing can be written.

    Keys are UTF-8 bytes in the changelog and in RocksDB, values JSON. `owner` gives the message key that a
    table key belongs to.

    Attributes:
        in_memory: set it where the table has few rows: as long as a task's are at most 1 000, its committed
            values are held in memory, too, and a read costs no look into RocksDB.
    """

    in_memory = False

    def __init__(self, *args: Any, owner: Owner = before_slash, **kwargs: Any) -> None:
        self.owner = owner
        self.by_slash = owner is before_slash  # who owns a key is then seen without a call
        super().__init__(*args, **kwargs)
        self._layer: Layer | None = None
        self._limit: int | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default.

        Raises:
            ForeignKey: in a handler, if its event's message key does not own this key.
            LookupError: outside a handler, if this worker does not hold the key's partition now.
        """
        raw = self.raw(key)
        return default if raw is None else orjson.loads(raw)

    def __getitem__(self, key: str) -> Any:
        raw = self.raw(key)
        return self.__missing__(key) if raw is None else orjson.loads(raw)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.raw(key) is not None

    def __setitem__(self, key: str, value: Any) -> None:
        # a copy of its own length: what orjson gives holds several times as much memory until the commit
        self.set_raw(key, bytes(memoryview(orjson.dumps(value))))

    def set_raw(self, key: str, raw: bytes) -> None:
        """Set a key to JSON bytes, of who encodes the value himself; raises as setting a value does."""
        unit, raw_key = find_unit(), key.encode()
        if unit is None or unit.finished or not self.by_slash:
            unit = self._unit_for(key, raw_key, "write")
        elif raw_key != unit.event.key and raw_key.partition(b"/")[0] != unit.event.key:
            self.check_owner(unit, key, raw_key)
        size = len(raw)
        if self._limit is None:
            self._limit = self._the_layer().record_limit(self.changelog_topic_name)
        if size + len(raw_key) > self._limit:
            text = f"{size} bytes for {self.name}[{key!r}], whose changelog takes {self._limit}"
            raise RecordTooLarge(text)
        # as `Unit.write`, without its call
        name, fresh = self.name, unit.task.uncommitted[self.name]
        if raw_key in fresh:
            unit.replaces(name, raw_key, fresh[raw_key])
        unit.writes.append((name, raw_key, raw))
        fresh[raw_key] = raw, unit
        unit.added += size

    def __delitem__(self, key: str) -> None:
        raw_key = key.encode()
        self._unit_for(key, raw_key, "delete").write(self.name, raw_key, None)

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Several keys at once are not part of a unit; Faust's own ways to them go past it."""
        raise NoUnit("going over several keys of a table is not part of a unit: name the keys you own")

    keys = values = items = clear = popitem = update = _refuse

    def __len__(self) -> int:
        raise NoUnit("the length of a table is not known to a unit")

    def raw(self, key: str) -> bytes | None:
        """The JSON bytes of a key, as a view wants them, or who decodes them itself; raises as `get`."""
        unit, raw_key = find_unit(), key.encode()
        if unit is None:
            return self._the_layer().committed_value(self.partition_of(key), self.name, raw_key)
        owner = unit.event.key
        if not self.by_slash or (raw_key != owner and raw_key.partition(b"/")[0] != owner):
            self.check_owner(unit, key, raw_key)
        # as `Unit.read`, without its call: a handler does this again and again
        name, task = self.name, unit.task
        fresh = task.uncommitted[name]
        return fresh[raw_key][0] if raw_key in fresh else task.committed[name](raw_key)

    def partition_of(self, key: str) -> int:
        """The partition that the key's owner hashes to."""
        return partition_of(self.owner(key).encode(), self._the_layer().partitions)

    async def on_start(self) -> None:
        """Start without Faust's own changelog declaration: the layer creates changelogs first."""
        await self.add_runtime_dependency(self.data)

    def _unit_for(self, key: str, raw_key: bytes, act: str) -> Unit:
        """The running unit, if it may do that to the key."""
        unit = find_unit()
        if unit is None or unit.finished:
            raise NoUnit(f"cannot {act} {self.name}[{key!r}] outside a handler")
        self.check_owner(unit, key, raw_key)
        return unit

    def check_owner(self, unit: Unit, key: str, raw_key: bytes) -> None:
        """Refuse a key of another owner than the unit's event; ForeignKey."""
        message_key = unit.event.key
        if message_key is None or self.owner(key).encode() != message_key:
            raise ForeignKey(
                f"{self.name}[{key!r}] belongs to {self.owner(key)!r}, the event to {message_key!r}"
            )

    def _the_layer(self) -> Layer:
        if self._layer is None:
            self._layer = Layer.of(self.app)
        return self._layer


def raws(key: str, *tables: Table) -> list[bytes | None]:
    """`Table.raw` of a key in several tables, with one look at whose it is; raises as that does."""
    unit = find_unit()
    if unit is None:
        return [table.raw(key) for table in tables]
    raw_key, owner, task = key.encode(), unit.event.key, unit.task
    is_owned = raw_key == owner or raw_key.partition(b"/")[0] == owner
    for table in tables:
        if not (is_owned and table.by_slash):
            table.check_owner(unit, key, raw_key)
    uncommitted, committed = task.uncommitted, task.committed
    return [
        fresh[raw_key][0]
        if raw_key in (fresh := uncommitted[table.name])
        else committed[table.name](raw_key)
        for table in tables
    ]
