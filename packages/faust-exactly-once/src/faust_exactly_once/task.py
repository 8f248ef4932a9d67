"""One epoch of a task: its sources, its values, what it has under way."""

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Protocol
from weakref import WeakKeyDictionary

from .commit import Committer
from .commit_loop import CommitLoop
from .counts import Counts
from .errors import StoreFailed
from .key_queues import KeyQueues
from .owner import Owner
from .source import Source
from .task_stores import TaskStores, View
from .units import Look, Uncommitted
from .wake import Wake


class Follower(Protocol):
    """What is told when the task ends."""

    def end(self) -> None:
        """Take notice that the epoch is over."""


class Task:
    """A partition number of the co-partitioned sources, for one epoch (points 2, 7, 10)."""

    def __init__(
        self, owner: Owner, partition: int, sources: Mapping[str, Source], stores: TaskStores,
        committer: Committer, executor: Executor, epoch: int = 0, counts: Counts | None = None,
    ) -> None:  # fmt: skip
        self.epoch = epoch
        self.partition = partition
        self.sources = sources
        self.uncommitted: Uncommitted = {name: {} for name in stores.tables}
        self.is_open = True
        self.counts = counts or Counts()
        self.followers: WeakKeyDictionary[Follower, None] = WeakKeyDictionary()  # in their order
        self.accepting = True  # False once the epoch ends: batches of it are dropped
        self.wake = Wake()
        for source in sources.values():
            source.share = owner.bounds.share(source.topic)
        self.queues = KeyQueues(self, owner)
        self.commits = CommitLoop(self, self.queues, owner, committer, executor)
        self._owner = owner
        self._stores = stores
        self.committed: dict[str, Look] = {name: store.get for name, store in stores.tables.items()}
        for store in stores.tables.values():
            store.on_failed_read = self._read_failed
        self._committer = committer

    def waiting_units(self) -> int:
        """Units not yet committed."""
        return sum(len(source.run) for source in self.sources.values())

    def has_room(self) -> bool:
        """True if more of its events may be fetched (the per-task bound of point 10)."""
        return self.accepting and self.waiting_units() < self._owner.options.max_waiting_units

    def start(self) -> None:
        """Begin to commit what finishes."""
        self.commits.start()

    def moved(self) -> None:
        """Take notice that the consumer's position moved."""
        self.wake.set()

    def committed_value(self, table: str, key: bytes) -> bytes | None:
        """The value in RocksDB."""
        return self.committed[table](key)

    def committed_items(self, table: str, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """Committed keys and values of a table behind a key, in key order."""
        try:
            items = self._stores.tables[table].items_after(after.encode(), limit)
        except StoreFailed as exc:
            self._read_failed(exc)
            raise
        return [(key.decode(), value) for key, value in items]

    def _read_failed(self, exc: StoreFailed) -> None:
        """No handler can make up for a broken disk."""
        if self.is_open:
            self._owner.task_failed(self, exc)

    def view(self, tables: Iterable[str]) -> View:
        """The committed values of these tables as one commit left them; waits for a write under way."""
        return self._stores.view(tables)

    async def close(self, *, grace_s: float, last_commit_s: float) -> None:
        """End the epoch: a bounded grace, a last commit, then the rest is cancelled (point 7)."""
        if not self.is_open:
            return
        self.accepting = False
        if grace_s:
            await self.queues.grace(grace_s)
        if last_commit_s:
            await self.commits.last_commit(last_commit_s)
        self.is_open = False
        self.queues.cancel()
        self.commits.cancel()
        for follower in list(self.followers):
            follower.end()
        self._drop()

    def _drop(self) -> None:
        units = [unit for source in self.sources.values() for unit in source.run]
        for unit in units:
            unit.finished = True  # what its handler still does changes nothing
        self._owner.bounds.held_bytes -= sum(unit.size for unit in units)
        for source in self.sources.values():
            source.run.clear()
        self.queues.last_of_key.clear()
        for fresh in self.uncommitted.values():
            fresh.clear()

    async def ended(self) -> None:
        """Wait until the last commit thread of this epoch has returned; then close the databases."""
        await self.commits.returned()
        await asyncio.get_running_loop().run_in_executor(None, self._close_files)

    def _close_files(self) -> None:
        self._committer.producer.close()
        self._stores.close()
