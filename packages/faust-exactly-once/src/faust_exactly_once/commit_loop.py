"""The commit loop of a task: chooses what may commit, commits it, releases it."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Protocol

from .commit import CommitBatch, Committer, make_commit_batch
from .counts import Counts, reason
from .errors import RecordRefused, TopicUnknown, TransactionAborted
from .key_queues import KeyQueues
from .owner import Owner
from .selection import choose
from .source import Source
from .units import Unit, UnitTask
from .wake import Wake

logger = logging.getLogger(f"{__package__}.task")  # the name under which operators know these lines

ABORTS_IN_A_ROW = 5
UNKNOWN_PAUSE_S = 0.5  # before a topic that a broker does not know is tried again; the producer says how long
PACE = 2.0  # under load a commit is followed by a pause of this many times its own length


class Committing(UnitTask, Protocol):
    """What the loop needs of its task; `wake` says that there may be something to commit."""

    sources: Mapping[str, Source]
    counts: Counts
    is_open: bool
    wake: Wake


class CommitLoop:
    """Commits what finishes, one transaction at a time."""

    def __init__(
        self, task: Committing, queues: KeyQueues, owner: Owner, committer: Committer, executor: Executor
    ) -> None:
        self._task = task
        self._queues = queues
        self._owner = owner
        self._committer = committer
        self._executor = executor
        self._clock = owner.options.environment.clock
        self._in_doubt = False
        self._most_units = owner.options.max_units_per_commit
        self._committing = asyncio.Lock()
        self._under_way: asyncio.Future[None] | None = None
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to commit what finishes."""
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._task.is_open:
                await self._task.wake.wait()
                took_s = await self.commit_once()
                if took_s:
                    await asyncio.sleep(self._pause_s(took_s))
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._owner.task_failed(self._task, exc)

    def _pause_s(self, took_s: float) -> float:
        """How long nothing is committed after a commit that took so long (point 11)."""
        options = self._owner.options
        pace_s = min(took_s * PACE, options.commit_interval_ms / 1000) if self._waits() else 0.0
        return max(pace_s, options.commit_distance_ms / 1000 - took_s)

    async def commit_once(self) -> float:
        """Commit what may commit now.

        Returns:
            how long it took in seconds; 0 if there was nothing.
        """
        async with self._committing:
            # a commit that failed or was given up may have happened: this epoch commits nothing more
            batch = self._choose() if self._task.is_open and not self._in_doubt else None
            if batch is None:
                return 0.0
            started = self._clock.monotonic()
            self._in_doubt = True
            committed = await self._commit_or_narrow(batch)
            self._in_doubt = False
            if committed and self._task.is_open:
                self._release(batch)
            took = self._clock.monotonic() - started
        if committed:
            records = len(batch.records) + sum(len(changes) for changes in batch.changes.values())
            self._task.counts.committed(len(batch.units), records, took, self._clock.time())
        moved = any(source.idle_position() is not None for source in self._task.sources.values())
        if moved or self._waits() or len(batch.units) >= self._owner.options.max_units_per_commit:
            self._task.wake.set()
        return took

    def _choose(self) -> CommitBatch | None:
        sources = list(self._task.sources.values())
        chosen = choose([source.run for source in sources], self._most_units)
        if self._most_units == 1:
            _keep_only_the_first(chosen)
        offsets: dict[tuple[str, int], int] = {}
        for source, run in zip(sources, chosen, strict=True):
            at = run[-1].event.offset + 1 if run else source.idle_position()
            if run and len(run) == len(source.run) and not source.queued:
                at = max(source.position, run[-1].event.offset + 1)
            if at is not None:
                offsets[source.topic, self._task.partition] = at
        if not offsets:
            return None
        units = [unit for run in chosen for unit in run]
        if sum(1 for run in chosen if run) > 1:
            units.sort(key=lambda unit: unit.number)
        return make_commit_batch(units, offsets, self._task.committed_value)

    async def _commit_or_narrow(self, batch: CommitBatch) -> bool:
        """Commit; after a refused record first what stands before it, then its unit alone (point 9d).

        Returns:
            False if nothing was committed, because fewer units are tried next.

        Raises:
            RecordRefused: of a unit that was tried alone; the worker stops, naming the record.
        """
        most = self._owner.options.max_units_per_commit
        try:
            await self._commit_in_thread(batch)
        except RecordRefused as exc:
            if len(batch.units) < 2:
                raise
            logger.warning(
                "task %d: Kafka refuses a record of one of %d events, trying fewer at once: %s",
                self._task.partition, len(batch.units), exc, extra={"task": self._task.partition},
            )  # fmt: skip
            self._most_units = max(1, min(self._most_units, len(batch.units)) // 2)
            return False
        self._most_units = min(most, self._most_units * 2)
        return True

    async def _commit_in_thread(self, batch: CommitBatch) -> None:
        """Run the commit; a definite abort sends the same commit batch again (point 9a)."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            attempt += 1
            self._under_way = loop.run_in_executor(self._executor, self._committer.commit, batch)
            try:
                return await asyncio.shield(self._under_way)
            except TransactionAborted as exc:
                self._task.counts.aborted(exc)
                alone, unknown = len(batch.units) < 2, isinstance(exc, TopicUnknown)
                attempt -= unknown
                if attempt == ABORTS_IN_A_ROW or (isinstance(exc, RecordRefused) and not alone):
                    raise
                logger.warning(
                    "task %d: transaction aborted, sending it again: %s", self._task.partition, exc,
                    extra={"task": self._task.partition, "fold": True},
                )  # fmt: skip
                await asyncio.sleep(UNKNOWN_PAUSE_S if unknown else 0.05 * attempt)

    def _release(self, batch: CommitBatch) -> None:
        """Step 8 of the commit: forget the units; an uncommitted value leaves only if it is unchanged."""
        last_of_key, size = self._queues.last_of_key, 0
        for unit in batch.units:
            unit.committed = True
            unit.previous = None
            size += unit.size
            key = unit.event.key
            if key in last_of_key and last_of_key[key] is unit:
                del last_of_key[key]
        for table, changes in batch.changes.items():
            fresh = self._task.uncommitted[table]
            for key in changes:
                if key in fresh and fresh[key][1].committed:
                    del fresh[key]
        for (topic, _), offset in batch.offsets.items():
            source = self._task.sources[topic]
            source.committed = offset
            run, leave = source.run, source.run.popleft
            while run and run[0].committed:
                leave()
        self._owner.bounds.held_bytes -= size
        self._report(batch.units)

    def _report(self, units: Iterable[Unit]) -> None:
        """Pass on what handlers reported in committed units; a fault in there undoes no commit."""
        reports = [(unit.event, facts) for unit in units for facts in unit.reports]
        on_committed, on_commit = self._owner.options.on_committed, self._owner.options.on_commit
        try:
            if reports and on_commit is not None:
                on_commit(reports)
            elif on_committed is not None:
                for event, facts in reports:
                    on_committed(event, facts)
        except Exception:
            with suppress(Exception):  # a log that fails may fail here as well
                logger.exception("task %d: the log of committed outcomes failed", self._task.partition)

    async def last_commit(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self.commit_once()
        except Exception as exc:  # whatever it was: the next epoch goes by the committed offset
            logger.warning(
                "task %d: the last commit did not happen, its events will be handled again: %s",
                self._task.partition, reason(exc), extra={"task": self._task.partition, "fold": True},
            )  # fmt: skip

    def cancel(self) -> None:
        """Begin no further commit; one that is under way in its thread goes on."""
        if self._loop is not None:
            self._loop.cancel()

    async def returned(self) -> None:
        """Wait until the last commit thread has returned."""
        under_way = self._under_way
        if under_way is not None and not under_way.done():
            await asyncio.wait([under_way])
        if under_way is not None and under_way.done() and not under_way.cancelled():
            under_way.exception()  # seen by whoever awaited it, or a zombie's: either way no longer news

    def _waits(self) -> bool:
        """True while units are not committed."""
        return any(source.run for source in self._task.sources.values())


def _keep_only_the_first(chosen: list[list[Unit]]) -> None:
    """Leave the run that begins with the earliest unit; its key's earlier units are not in another one."""
    first = min((run[0].number for run in chosen if run), default=0)
    for run in chosen:
        if run and run[0].number != first:
            run.clear()
