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

    Keys are UTF-8 bytes in the changelog and in RocksDB, values JSON.
    """

    def __init__(self, *args: Any, owner: Owner = before_slash, **kwargs: Any) -> None:
        self.owner = owner
        super().__init__(*args, **kwargs)
        self._layer: Layer | None = None
        self._limit: int | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default.

        Raises:
            ForeignKey: in a handler, if its event's message key does not own this key.
            LookupError: outside a handler, if this worker does not hold the key's partition now.
        """
        raw = self._read(key)
        return default if raw is None else orjson.loads(raw)

    def __getitem__(self, key: str) -> Any:
        raw = self._read(key)
        return self.__missing__(key) if raw is None else orjson.loads(raw)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._read(key) is not None

    def __setitem__(self, key: str, value: Any) -> None:
        unit, raw_key = self._unit_for(key, "write")
        raw = orjson.dumps(value)
        if self._limit is None:
            self._limit = self._the_layer().record_limit(self.changelog_topic_name)
        if len(raw) + len(raw_key) > self._limit:
            text = f"{len(raw)} bytes for {self.name}[{key!r}], whose changelog takes {self._limit}"
            raise RecordTooLarge(text)
        unit.write(self.name, raw_key, raw)

    def __delitem__(self, key: str) -> None:
        unit, raw_key = self._unit_for(key, "delete")
        unit.write(self.name, raw_key, None)

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Several keys at once are not part of a unit; Faust's own ways to them go past it."""
        raise NoUnit("going over several keys of a table is not part of a unit: name the keys you own")

    keys = values = items = clear = popitem = update = _refuse

    def __len__(self) -> int:
        raise NoUnit("the length of a table is not known to a unit")

    def raw(self, key: str) -> bytes | None:
        """The JSON bytes of a key as a view wants them."""
        return self._read(key)

    def partition_of(self, key: str) -> int:
        """The partition that the key's owner hashes to."""
        return partition_of(self.owner(key).encode(), self._the_layer().partitions)

    async def on_start(self) -> None:
        """Start without Faust's own changelog declaration: the layer creates changelogs first."""
        await self.add_runtime_dependency(self.data)

    def _read(self, key: str) -> bytes | None:
        unit, raw_key = find_unit(), key.encode()
        if unit is None:
            return self._the_layer().committed_value(self.partition_of(key), self.name, raw_key)
        self._check_owner(unit, key, raw_key)
        return unit.read(self.name, raw_key)

    def _unit_for(self, key: str, act: str) -> tuple[Unit, bytes]:
        """The running unit, the key's bytes."""
        unit, raw_key = find_unit(), key.encode()
        if unit is None or unit.finished:
            raise NoUnit(f"cannot {act} {self.name}[{key!r}] outside a handler")
        self._check_owner(unit, key, raw_key)
        return unit, raw_key

    def _check_owner(self, unit: Unit, key: str, raw_key: bytes) -> None:
        message_key = unit.event.key
        if self.owner is before_slash:  # without a call: every read and write of a handler comes here
            owner = raw_key.partition(b"/")[0]
        else:
            owner = self.owner(key).encode()
        if message_key is None or owner != message_key:
            raise ForeignKey(
                f"{self.name}[{key!r}] belongs to {self.owner(key)!r}, the event to {message_key!r}"
            )

    def _the_layer(self) -> Layer:
        if self._layer is None:
            self._layer = Layer.of(self.app)
        return self._layer
