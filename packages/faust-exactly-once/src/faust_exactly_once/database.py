"""A RocksDB database that holds committed values only, a proven prefix of its changelog."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, cast

import orjson
from rocksdict import AccessType, Rdict
from rocksdict import Options as RocksOptions

from .environment import REAL, Environment
from .errors import StoreFailed, StoreInUse

logger = logging.getLogger(f"{__package__}.store")  # the name under which operators know these lines

FORMAT = 1
NO_STATE = "no local state"
META_PREFIX = b"__faust\0"  # Faust's own prefix for what is not table data
META_KEY = META_PREFIX + b"exactly-once"
MOST_KEPT = 1000  # rows of a table that is held in memory; one that grows beyond is read from the disk again
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
        self._kept: dict[bytes, bytes] | None = None
        self.on_failed_read: Callable[[StoreFailed], None] | None = None  # called by `get`, before it raises

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
        kept = self._kept  # a commit, in another thread, may replace it meanwhile
        if kept is not None:
            return kept.get(key)
        try:
            value: bytes | None = (self._live() if self._db is None else self._db).get(key)
        except Exception as exc:
            failure = exc if isinstance(exc, StoreFailed) else self._failed(exc)
            if self.on_failed_read is not None:
                self.on_failed_read(failure)
            raise failure from exc
        return value

    def keep_in_memory(self) -> None:
        """Answer each `get` from memory from now on, for a table of few rows: as long as there are few.

        Raises:
            StoreFailed: unreadable.
        """
        self._keep(dict(islice(self.items(), MOST_KEPT + 1)))

    def _keep(self, values: dict[bytes, bytes]) -> None:
        self._kept = values if len(values) <= MOST_KEPT else None

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
        if self._kept is not None:
            self._keep(_changed(self._kept, changes))

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
        db, self._db, self._is_new, self._kept = self._db, None, False, None
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


def _changed(values: dict[bytes, bytes], changes: Mapping[bytes, bytes | None]) -> dict[bytes, bytes]:
    """Another dict, so that who reads in another thread sees all of the changes or none."""
    values = values | {key: value for key, value in changes.items() if value is not None}
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
    return values


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
