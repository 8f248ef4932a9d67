"""RocksDB databases that hold committed values only, each a proven prefix of its changelog."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

import orjson
from faust.stores.base import Store as FaustStore
from rocksdict import AccessType, Rdict
from rocksdict import Options as RocksOptions

from .commit import Changes
from .environment import REAL, Environment, Threads
from .errors import StoreFailed, StoreInUse

logger = logging.getLogger(__name__)

FORMAT = 1
NO_STATE = "no local state"
META_PREFIX = b"__faust\0"  # Faust's own prefix for what is not table data
META_KEY = META_PREFIX + b"exactly-once"
DAMAGE = ("Corruption", "No such file", "Invalid argument")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which changelog a database is a prefix of; another cluster or a re-created topic is another one."""

    cluster_id: str
    topic_id: str
    partition: int
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a database has come: the changelog offset to continue at, when (ms since the epoch)."""

    position: int
    at_ms: int


class PartitionStore:
    """One database: the committed values of one table in one partition.

    Durability: a write is in the operating system when `apply` returns, so it survives SIGKILL of the
    process. After a power cut RocksDB comes back with an earlier prefix, which recovery tops up.
    """

    def __init__(self, path: Path, environment: Environment = REAL) -> None:
        self.path = path
        self._disk, self._clock = environment.disk, environment.clock
        self.identity: Identity | None = None
        self.reached = Reached(0, 0)
        self._db: Rdict | None = None
        self._is_new = False

    def open(self) -> str | None:
        """Open the database; damaged files are removed.

        Returns:
            why it starts from empty, or None where its content was kept.

        Raises:
            StoreInUse: another process holds it.
            OSError: the folder cannot be used (full, read-only); nothing is deleted.
        """
        reason = NO_STATE if not self.path.exists() else None
        if self._mark.exists():
            reason = "damaged files (found while running)"
            self._disk.remove(self.path)
            self._mark.unlink()
        is_new = not self.path.exists()
        try:
            self._db = self._disk.open(self.path)
            self._read_meta()
            self._is_new = is_new
        except Exception as exc:
            reason = _why_damaged(self.path, exc)
            self.wipe()
        return reason

    def wipe(self) -> None:
        """Start from empty; one made a moment ago stays, as making one syncs the disk several times."""
        if self._is_new:
            return
        self.close()
        self._disk.remove(self.path)
        self._db, self._is_new = self._disk.open(self.path), True
        self.identity, self.reached = None, Reached(0, 0)

    def adopt(self, identity: Identity) -> None:
        """Bind an empty database to its changelog."""
        self.identity = identity
        self.apply({}, self.reached.position)

    def get(self, key: bytes) -> bytes | None:
        """The committed value, or None.

        Raises:
            StoreFailed: closed, or unreadable; if damaged, the next `open` starts from empty.
        """
        db = self._live()
        try:
            value: bytes | None = db.get(key)
        except Exception as exc:
            raise self._failed(exc) from exc
        return value

    def apply(self, changes: Mapping[bytes, bytes | None], position: int) -> None:
        """Write values and the changelog offset they reach in one WriteBatch."""
        self._write(changes, Reached(position, int(self._clock.time() * 1000)))

    def top_up(self, changes: Mapping[bytes, bytes | None], position: int) -> None:
        """Write a part of what is missing: the content stays as old as it was, deletions may be unread."""
        self._write(changes, Reached(position, self.reached.at_ms))

    def _write(self, changes: Mapping[bytes, bytes | None], reached: Reached) -> None:
        batch = self._disk.batch()
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(
            META_KEY, orjson.dumps({**asdict(self.identity), **asdict(reached)} if self.identity else {})
        )
        db, self._is_new = self._live(), False
        try:
            db.write(batch)
        except Exception as exc:
            raise self._failed(exc) from exc
        self.reached = reached

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Committed keys and values whose key starts with the prefix, in key order."""
        walk = Walk(self, prefix)
        found = chain.from_iterable(iter(lambda: walk.take(100), []))
        return takewhile(lambda item: item[0].startswith(prefix), found)

    def items_after(self, key: bytes, most: int) -> list[tuple[bytes, bytes]]:
        """The next committed keys and values behind a key, in key order; fewer than `most`: the last ones.

        Raises:
            StoreFailed: closed, or unreadable.
        """
        return Walk(self, key + b"\0").take(most)

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """RocksDB's iterator is made here and now: it shows what is committed at this moment, no later.

        It ends at a damaged block as at the end; `check_end` tells them apart.
        """
        return cast(Iterator[tuple[bytes, bytes]], self._live().items(from_key=start or None))  # raw mode

    def check_end(self, last: bytes) -> None:
        """Ask whether the step after this key fails.

        Raises:
            StoreFailed: it does; the next `open` starts from empty.
        """
        at = self._live().iter()
        try:
            at.seek(last)
            if at.valid():
                at.next()
            at.status()
        except Exception as exc:
            raise self._failed(exc) from exc
        finally:
            del at  # or the error's traceback would keep the database locked

    def close(self) -> None:
        """Close the files; never fails: what a full disk keeps from them is in RocksDB's log, or in Kafka."""
        db, self._db, self._is_new = self._db, None, False
        if db is not None:
            try:
                db.close()
            except Exception as exc:
                logger.warning("%s was not closed properly: %s", self.path, exc)

    @property
    def _mark(self) -> Path:
        return self.path.with_name(f"{self.path.name}.damaged")

    def _failed(self, exc: Exception) -> StoreFailed:
        """Opening checks no data blocks: leave word for the next `open` where one is damaged."""
        if "Corruption" in str(exc):
            self._mark.touch()
            logger.error("%s is damaged; it is rebuilt from Kafka when it is next opened: %s", self.path, exc)
        return StoreFailed(f"{self.path}: {exc}")

    def _read_meta(self) -> None:
        raw = self._live().get(META_KEY)
        if raw is None:
            return
        meta = orjson.loads(raw)
        self.identity = Identity(meta["cluster_id"], meta["topic_id"], meta["partition"], meta["format"])
        self.reached = Reached(meta["position"], meta["at_ms"])

    def _live(self) -> Rdict:
        if self._db is None:
            raise StoreFailed(f"{self.path} is closed")
        return self._db


def read_database(path: Path) -> tuple[int, dict[bytes, bytes]]:
    """The changelog offset that a database on disk has reached, and its keys and values; changes nothing.

    For checks while no worker holds it. Raises Exception with RocksDB's words where it cannot be read.
    """
    database = Rdict(str(path), RocksOptions(raw_mode=True), access_type=AccessType.read_only())
    try:
        meta = orjson.loads(cast(bytes, database.get(META_KEY)) or b"{}")
        pairs: Any = database.items()  # typed for all that rocksdict can hold; raw mode gives bytes
        content = {key: value for key, value in pairs if not key.startswith(META_PREFIX)}
    finally:
        database.close()
    return int(meta.get("position", 0)), content


def _why_damaged(path: Path, exc: Exception) -> str:
    text = str(exc)
    if "While lock file" in text or "lock hold by" in text:
        raise StoreInUse(f"{path} is held by another process: give each worker its own --datadir") from exc
    if isinstance(exc, (KeyError, ValueError, TypeError)):
        return "unknown format"
    if not any(word in text for word in DAMAGE):
        raise OSError(f"cannot open {path}: {text}") from exc
    return f"damaged files ({text})"


class Walk:
    """Goes through a database as it is at this moment, in key order, a stretch at a time."""

    def __init__(self, store: PartitionStore, start: bytes = b"") -> None:
        self._store = store
        self._found = store.scan(start)
        self._last = start

    def take(self, most: int) -> list[tuple[bytes, bytes]]:
        """The next keys and values; fewer than `most`: these are the last.

        Raises:
            StoreFailed: closed, or unreadable.
        """
        taken: list[tuple[bytes, bytes]] = []
        while len(taken) < most:
            found = list(islice(self._found, most - len(taken)))
            if not found:
                self._found = iter(())  # lets go of the database
                self._store.check_end(self._last)
                break
            self._last = found[-1][0]
            taken += [item for item in found if not item[0].startswith(META_PREFIX)]
        return taken


class View:
    """The values of some tables as one commit left them, whatever is committed meanwhile.

    Read it soon: RocksDB keeps what is replaced as long as it is open. (Its iterators do that; those of
    rocksdict's own `Snapshot` do not.)
    """

    def __init__(self, walks: Mapping[str, Walk], threads: Threads = REAL.threads) -> None:
        self._lock = threads.lock()
        self._walks: Mapping[str, Walk] | None = walks

    def take(self, table: str, most: int) -> list[tuple[bytes, bytes]]:
        """The next keys and values, in key order; fewer than `most`: these are the last.

        Raises:
            StoreFailed: the epoch is over, or the database is unreadable.
        """
        with self._lock:
            if self._walks is None:
                raise StoreFailed("the task has been stopped")
            return self._walks[table].take(most)

    def close(self) -> None:
        """Let go of the databases; waits for a `take` under way."""
        with self._lock:
            self._walks = None


class TaskStores:
    """The databases of one task, one per table; writes stop once the epoch is over."""

    def __init__(self, stores: Mapping[str, PartitionStore], threads: Threads = REAL.threads) -> None:
        self.tables = stores
        self._threads = threads
        self._lock = threads.lock()
        self._open = True
        self._views: WeakSet[View] = WeakSet()

    def apply(self, changes: Changes, reached: Mapping[str, int]) -> None:
        """Write each table's values with the changelog offset they reach.

        Raises:
            StoreFailed: RocksDB refused, or this epoch is over; the changelog has the values.
        """
        with self._lock:
            if not self._open:
                raise StoreFailed("the task has been stopped")
            try:
                for table, values in changes.items():
                    self.tables[table].apply(values, reached[table])
            except Exception as exc:
                raise StoreFailed(f"RocksDB refused a write: {exc}") from exc

    def view(self, tables: Iterable[str]) -> View:
        """What is committed now, of these tables; between two writes, so of one commit.

        Raises:
            StoreFailed: the epoch is over.
        """
        with self._lock:
            if not self._open:
                raise StoreFailed("the task has been stopped")
            view = View({table: Walk(self.tables[table]) for table in tables}, self._threads)
            self._views.add(view)
            return view

    def close(self) -> None:
        """End the epoch's access; waits for a write, a read under way."""
        with self._lock:
            self._open = False
            for view in list(self._views):
                view.close()  # an iterator would keep its database locked
            for store in self.tables.values():
                store.close()


class Store(FaustStore[Any, Any]):
    """Faust's store plug-in: names the databases of one table.

    Reading and writing go through `Table`, which knows the handler's unit; the databases themselves are
    opened for each epoch of a task by the layer.
    """

    def path(self, partition: int) -> Path:
        """The database folder of a partition, where Faust's own RocksDB store has it."""
        return Path(self.app.conf.tabledir) / f"{self.table_name}-{partition}.db"

    def persisted_offset(self, tp: Any) -> int | None:
        """Faust's recovery asks this; ours keeps the offset in each database."""
        return None

    def reset_state(self) -> None:
        """Remove the local databases (`faust reset`); they come back from the changelog."""
        for path in Path(self.app.conf.tabledir).glob(f"{self.table_name}-*.db"):
            shutil.rmtree(path, ignore_errors=True)

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Refuse: only the layer's recovery writes."""
        raise NotImplementedError("the layer's own recovery applies changelogs")

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError("read through the table")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError("write through the table")

    def __delitem__(self, key: Any) -> None:
        raise NotImplementedError("write through the table")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("read through the table")

    def __len__(self) -> int:
        raise NotImplementedError("read through the table")
