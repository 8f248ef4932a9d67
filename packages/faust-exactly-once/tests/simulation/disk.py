"""A worker's disk with RocksDB on it, in memory: what is written stays when the process dies."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from faust_exactly_once.disk import open_database

from .clock import clock
from .log import Values
from .process import Process

if TYPE_CHECKING:
    from .worker import Worker

LOCKED = "IO error: While lock file: held by current process"
FULL = "IO error: No space left on device"


@dataclass(slots=True)
class Files:
    """One database's files; `holder` is the process that has them open."""

    values: Values = field(default_factory=dict)
    holder: Process | None = None


@dataclass(slots=True)
class Disk:
    """Folders by path; the next so many writes are refused."""

    folders: dict[str, Files] = field(default_factory=dict)
    marks: dict[str, None] = field(default_factory=dict)
    refuses: int = 0

    def copy(self) -> dict[str, Values]:
        """The databases as they are now."""
        return {path: dict(files.values) for path, files in self.folders.items()}

    def put_back(self, copy: dict[str, Values]) -> None:
        """Replace everything by an old copy; only while no process has it open."""
        self.folders = {path: Files(dict(values)) for path, values in copy.items()}


def _disk() -> Disk:
    disk: Disk = clock().process.disk
    return disk


class MemoryPath:
    """A database's folder; has what the layer asks of a `Path`."""

    def __init__(self, path: Any) -> None:
        self._path = PurePosixPath(str(path))

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.name

    @property
    def parent(self) -> "MemoryPath":
        """The folder around."""
        return MemoryPath(self._path.parent)

    def __truediv__(self, name: str) -> "MemoryPath":
        return MemoryPath(self._path / name)

    def with_name(self, name: str) -> "MemoryPath":
        """Another one in the same folder."""
        return MemoryPath(self._path.with_name(name))

    def mkdir(self, **_: bool) -> None:
        """Nothing: folders are there."""

    def exists(self) -> bool:
        """True for a database or a mark that was made."""
        return str(self) in _disk().folders or str(self) in _disk().marks

    def touch(self) -> None:
        """Make a mark."""
        _disk().marks[str(self)] = None

    def unlink(self) -> None:
        """Remove a mark."""
        del _disk().marks[str(self)]

    def __str__(self) -> str:
        return str(self._path)


def remove(path: MemoryPath) -> None:
    """Remove a database."""
    _disk().folders.pop(str(path), None)


class MemoryBatch:
    """Stands where the layer uses `WriteBatch`."""

    def __init__(self) -> None:
        self.changes: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self.changes[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a value."""
        self.changes[key] = None


class MemoryDatabase:
    """Stands where the layer uses `Rdict`."""

    def __init__(self, path: MemoryPath) -> None:
        self._process: Worker = clock().process
        self._disk = _disk()
        self._name = path.name
        self._files = self._disk.folders.setdefault(str(path), Files())
        if self._files.holder is not None and not self._files.holder.dead:
            clock().fail(f"{self._process.name}: {path} is opened twice")
            raise OSError(LOCKED)
        self._files.holder = self._process

    def get(self, key: bytes) -> bytes | None:
        """A value."""
        return self._files.values.get(key)

    def write(self, batch: MemoryBatch) -> None:
        """All of it or nothing; others may come just before."""
        on = clock()
        if on.rng.random() < 0.2:
            on.fiber.sleep(on.rng.random() * 0.005)
        if self._disk.refuses:
            self._disk.refuses -= 1
            on.note(self._process.name, "disk refuses", self._name)
            raise OSError(FULL)
        for key, value in batch.changes.items():
            if value is None:
                self._files.values.pop(key, None)
            else:
                self._files.values[key] = value
        self._process.written(self._name, self._files.values)

    def items(self, from_key: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """In key order."""
        return iter([item for item in sorted(self._files.values.items()) if item[0] >= (from_key or b"")])

    def iter(self) -> "NoDamage":
        """What tells why `items` has ended."""
        return NoDamage()

    def close(self) -> None:
        """Let go of the files."""
        self._files.holder = None


class NoDamage:
    """An iterator behind the last key: memory has no blocks that can be damaged."""

    def seek(self, key: bytes) -> None:
        """Nothing to find."""

    def valid(self) -> bool:
        """It is at the end."""
        return False

    def status(self) -> None:
        """All is well."""


def open_real(path: Path) -> Any:
    """A real database of the process whose step this is, which closes it when it is killed."""
    database = open_database(path)
    clock().process.databases.append(database)
    return database
