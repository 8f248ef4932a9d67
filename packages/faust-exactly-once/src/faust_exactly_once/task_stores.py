"""The databases of one task, written and viewed as one."""

from collections.abc import Iterable, Mapping
from weakref import WeakSet

from .commit import Changes
from .database import PartitionStore, Walk
from .environment import REAL, Threads
from .errors import StoreFailed


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

    def keep_in_memory(self, tables: Iterable[str]) -> None:
        """Answer reads of these tables from memory, as long as they have few rows.

        Raises:
            StoreFailed: unreadable.
        """
        for table in tables:
            self.tables[table].keep_in_memory()

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
