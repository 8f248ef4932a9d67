"""One incarnation of a task: admits events into key lanes, commits their units."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from .bounds import Bounds
from .commit import Committer, Sealed, seal
from .counts import Counts, reason
from .errors import ExactlyOnceError, RecordRefused, StoreFailed, TopicUnknown, TransactionAborted
from .gaps import Head
from .options import Options
from .selection import choose
from .store import TaskStores, View
from .units import Change, TableKey, Unit, set_current_unit

logger = logging.getLogger(__name__)

Handler = Callable[[Any], Awaitable[None]]
ABORTS_IN_A_ROW = 5
UNKNOWN_PAUSE_S = 0.5  # before a topic that a broker does not know is tried again; the producer says how long
PACE = 2.0  # under load a commit is followed by a pause of this many times its own length


class Worker(Protocol):
    """What a task needs of its worker."""

    options: Options
    bounds: Bounds

    def task_failed(self, task: "Task", exc: BaseException) -> None:
        """Take over a task whose commit or handler failed."""


class Follower(Protocol):
    """What is told when the task ends."""

    def end(self) -> None:
        """Take notice that the incarnation is over."""


class Waiting(NamedTuple):
    """Events of a source partition that are not committed.

    Attributes:
        admitted: those that have a place in a handler's row: exact.
        unread: offsets behind them, up to the log's end at the last fetch: at most so many events, since
            transaction markers take offsets too.
        oldest_ms: the time stamp of the first of them, ms since the epoch; None where that is not known.
    """

    admitted: int
    unread: int
    oldest_ms: int | None


@dataclass(slots=True)
class Source:
    """One source partition of a task, in this incarnation.

    Attributes:
        admit_from: first offset not yet handed to a handler; earlier ones are dropped (point 7).
        position: where the consumer stands, markers included.
        committed: the offset that the last commit carried, or None.
        end_at_open: the log's end after the fence: no incarnation before can have seen what came later.
        queued: batches delivered to the agent, not yet admitted.
        delivered: offset after the last event delivered to the agent.
        run: uncommitted units in delivery order.
        log_end: up to where the log could be read at the last fetch; 0: not fetched yet.
    """

    topic: str
    admit_from: int
    position: int
    committed: int | None
    end_at_open: int = 0
    queued: int = 0
    delivered: int = 0
    run: deque[Unit] = field(default_factory=deque)
    log_end: int = 0

    def waiting(self) -> Waiting:
        """How much is not committed; looks only."""
        delivered = self.position - self.admit_from if self.queued else 0
        unread = max(0, delivered) + max(0, self.log_end - self.position)
        oldest_ms = self.run[0].event.timestamp if self.run else None
        return Waiting(len(self.run), unread, oldest_ms)

    def idle_position(self) -> int | None:
        """Where to commit when everything delivered is finished, or None if that stands already."""
        if self.run or self.queued or self.position <= (self.committed if self.committed is not None else -1):
            return None
        return self.position

    def head(self) -> Head | None:
        """The first event that is not committed, for the paged engineer (point 13)."""
        if self.run:
            unit, event = self.run[0], self.run[0].event
            held_by = "commit" if unit.finished else "handler"
            return Head(self.topic, event.offset, held_by, event.timestamp, event.key)
        return Head(self.topic, self.admit_from, "agent") if self.queued else None


class Task:
    """A partition number of the co-partitioned sources, from one assignment to its end (points 2, 7, 10)."""

    def __init__(
        self, worker: Worker, partition: int, sources: Mapping[str, Source], stores: TaskStores,
        committer: Committer, executor: Executor, token: int = 0, counts: Counts | None = None,
    ) -> None:  # fmt: skip
        self.token = token
        self.partition = partition
        self.sources = sources
        self.overlay: dict[TableKey, Change] = {}
        self.is_open = True
        self.counts = counts or Counts()
        self.followers: WeakSet[Follower] = WeakSet()
        self._worker = worker
        self._stores = stores
        self._committer = committer
        self._executor = executor
        self._admitted = 0
        self._last_of_key: dict[bytes | None, Unit] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._accepting = True
        self._in_doubt = False
        self._most_units = worker.options.max_units_per_commit
        self._wake = asyncio.Event()
        self._committing = asyncio.Lock()
        self._commit_under_way: asyncio.Future[None] | None = None
        self._loop_task: asyncio.Task[None] | None = None

    # -- admission

    def waiting_units(self) -> int:
        """Units not yet committed."""
        return sum(len(source.run) for source in self.sources.values())

    def has_room(self) -> bool:
        """True if more of its events may be fetched (the per-task bound of point 10)."""
        return self._accepting and self.waiting_units() < self._worker.options.max_waiting_units

    @property
    def accepting(self) -> bool:
        """False once the incarnation ends: batches of it are dropped."""
        return self._accepting

    def admit(self, source: Source, event: Any, handler: Handler) -> bool:
        """Give an event its unit, its place in the key's lane; start it if the lane is free.

        Returns:
            False if this incarnation had the event before: it is dropped.
        """
        if event.offset < source.admit_from:
            return False
        source.admit_from = event.offset + 1
        self._admitted += 1
        before = self._last_of_key.get(event.key)
        unit = Unit(self, event, self._admitted, before, event.offset >= source.end_at_open)
        source.run.append(unit)
        self._last_of_key[event.key] = unit
        self._worker.bounds.bytes_held(unit.size)
        if before is None or before.finished:
            self._start(unit, handler)
        else:
            before.successor = (unit, handler)
        return True

    def _start(self, unit: Unit, handler: Handler) -> None:
        running = asyncio.get_running_loop().create_task(self._handle(unit, handler))
        self._worker.bounds.handler_started()
        self._running.add(running)
        running.add_done_callback(self._stopped)

    def _stopped(self, running: "asyncio.Task[None]") -> None:
        self._running.discard(running)
        self._worker.bounds.handler_ended()

    async def _handle(self, unit: Unit, handler: Handler) -> None:
        """Run a handler in its own asyncio task and context (point 10)."""
        set_current_unit(unit)
        try:
            await handler(unit.event)
        except asyncio.CancelledError:
            if not self.is_open:
                raise
            await self._try_again(unit, handler, RuntimeError("the handler cancelled itself"))
        except Exception as exc:
            await self._try_again(unit, handler, exc)
        self._finish(unit)

    async def _try_again(self, unit: Unit, handler: Handler, exc: Exception) -> None:
        """Empty the unit, run its handler again; after the last try the application decides (point 9e)."""
        options = self._worker.options
        for attempt in range(1, options.handler_tries):
            unit.empty()
            logger.warning(
                "handling the event %s failed, try %d of %d: %s", _where(unit), attempt,
                options.handler_tries, reason(exc), exc_info=exc, extra={"task": self.partition},
            )  # fmt: skip
            await asyncio.sleep(0.05 * 2**attempt)
            try:
                return await handler(unit.event)
            except asyncio.CancelledError:
                if not self.is_open:
                    raise
            except Exception as again:
                exc = again
        unit.empty()
        try:
            if options.on_handler_failure is None:
                raise exc
            await options.on_handler_failure(unit.event, exc)
        except (Exception, asyncio.CancelledError) as last:
            if not self.is_open:
                raise
            self._worker.task_failed(
                self, HandlerFailed(f"handling the event {_where(unit)} failed on every try: {reason(last)}")
            )
            await asyncio.Event().wait()  # until the incarnation is closed, which cancels this

    def _finish(self, unit: Unit) -> None:
        unit.finished = True
        unit.undo.clear()  # or a hot key's units would keep each other alive
        if self.is_open:
            self._worker.bounds.bytes_held(unit.count_what_it_did())
        after, unit.successor = unit.successor, None
        if after is not None and self._accepting:
            self._start(*after)
        self._wake.set()

    # -- committing

    def start(self) -> None:
        """Begin to commit what finishes."""
        self._loop_task = asyncio.get_running_loop().create_task(self._commit_loop())

    def moved(self) -> None:
        """Take notice that the consumer's position moved."""
        self._wake.set()

    async def _commit_loop(self) -> None:
        try:
            while self.is_open:
                await self._wake.wait()
                self._wake.clear()
                took_s = await self.commit_once()
                if took_s and self.waiting_units():
                    await asyncio.sleep(min(took_s * PACE, self._worker.options.commit_interval_ms / 1000))
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._worker.task_failed(self, exc)

    async def commit_once(self) -> float:
        """Commit what may commit now.

        Returns:
            how long it took in seconds; 0 if there was nothing.
        """
        async with self._committing:
            # a commit that failed or was given up may have happened: this incarnation commits nothing more
            sealed = self._choose() if self.is_open and not self._in_doubt else None
            if sealed is None:
                return 0.0
            started = time.monotonic()
            self._in_doubt = True
            committed = await self._commit_or_narrow(sealed)
            self._in_doubt = False
            if committed and self.is_open:
                self._release(sealed)
            took = time.monotonic() - started
        if committed:
            records = len(sealed.records) + sum(len(changes) for changes in sealed.changes.values())
            self.counts.committed(len(sealed.units), records, took)
        moved = any(source.idle_position() is not None for source in self.sources.values())
        if moved or self.waiting_units() or len(sealed.units) >= self._worker.options.max_units_per_commit:
            self._wake.set()
        return took

    def _choose(self) -> Sealed | None:
        sources = list(self.sources.values())
        chosen = choose([source.run for source in sources], self._most_units)
        if self._most_units == 1:
            _keep_only_the_first(chosen)
        offsets: dict[tuple[str, int], int] = {}
        for source, run in zip(sources, chosen, strict=True):
            at = run[-1].event.offset + 1 if run else source.idle_position()
            if run and len(run) == len(source.run) and not source.queued:
                at = max(source.position, run[-1].event.offset + 1)
            if at is not None:
                offsets[source.topic, self.partition] = at
        if not offsets:
            return None
        units = [unit for run in chosen for unit in run]
        if sum(1 for run in chosen if run) > 1:
            units.sort(key=lambda unit: unit.number)
        return seal(units, offsets, self.committed_value)

    async def _commit_or_narrow(self, sealed: Sealed) -> bool:
        """Commit; after a refused record first what stands before it, then its unit alone (point 9d).

        Returns:
            False if nothing was committed, because fewer units are tried next.

        Raises:
            RecordRefused: of a unit that was tried alone; the worker stops, naming the record.
        """
        most = self._worker.options.max_units_per_commit
        try:
            await self._commit_in_thread(sealed)
        except RecordRefused as exc:
            if len(sealed.units) < 2:
                raise
            logger.warning(
                "task %d: Kafka refuses a record of one of %d events, trying fewer at once: %s",
                self.partition, len(sealed.units), exc, extra={"task": self.partition},
            )  # fmt: skip
            self._most_units = max(1, min(self._most_units, len(sealed.units)) // 2)
            return False
        self._most_units = min(most, self._most_units * 2)
        return True

    async def _commit_in_thread(self, sealed: Sealed) -> None:
        """Run the commit; a definite abort sends the same sealed units again (point 9a)."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            attempt += 1
            self._commit_under_way = loop.run_in_executor(self._executor, self._committer.commit, sealed)
            try:
                return await asyncio.shield(self._commit_under_way)
            except TransactionAborted as exc:
                self.counts.aborted(exc)
                alone, unknown = len(sealed.units) < 2, isinstance(exc, TopicUnknown)
                attempt -= unknown
                if attempt == ABORTS_IN_A_ROW or (isinstance(exc, RecordRefused) and not alone):
                    raise
                logger.warning(
                    "task %d: transaction aborted, sending it again: %s", self.partition, exc,
                    extra={"task": self.partition, "fold": True},
                )  # fmt: skip
                await asyncio.sleep(UNKNOWN_PAUSE_S if unknown else 0.05 * attempt)

    def _release(self, sealed: Sealed) -> None:
        """Step 8 of the commit: forget the units; an overlay entry leaves only if it is unchanged."""
        last_of_key, overlay = self._last_of_key, self.overlay
        size = 0
        for unit in sealed.units:
            unit.committed = True
            unit.previous = None
            size += unit.size
            if last_of_key.get(unit.event.key) is unit:
                del last_of_key[unit.event.key]
            for where in unit.writes:
                change = overlay.get(where)
                if change is not None and change.writer is unit:
                    del overlay[where]
        for (topic, _), offset in sealed.offsets.items():
            source = self.sources[topic]
            source.committed = offset
            while source.run and source.run[0].committed:
                source.run.popleft()
        self._worker.bounds.bytes_held(-size)
        self._tell(sealed.units)

    def _tell(self, units: Iterable[Unit]) -> None:
        """Pass on what handlers wanted told of committed units; a fault in there undoes no commit."""
        tell = self._worker.options.tell_committed
        if tell is None:
            return
        try:
            for unit in units:
                for facts in unit.told:
                    tell(unit.event, facts)
        except Exception:
            with suppress(Exception):  # a log that fails may fail here as well
                logger.exception("task %d: the log of committed outcomes failed", self.partition)

    def committed_value(self, table: str, key: bytes) -> bytes | None:
        """The value in RocksDB."""
        try:
            return self._stores.tables[table].get(key)
        except StoreFailed as exc:
            if self.is_open:
                self._worker.task_failed(self, exc)  # no handler can make up for a broken disk
            raise

    def committed_items(self, table: str, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """Committed keys and values of a table behind a key, in key order."""
        try:
            items = self._stores.tables[table].items_after(after.encode(), limit)
        except StoreFailed as exc:
            if self.is_open:
                self._worker.task_failed(self, exc)
            raise
        return [(key.decode(), value) for key, value in items]

    def view(self, tables: Iterable[str]) -> View:
        """The committed values of these tables as one commit left them; waits for a write under way."""
        return self._stores.view(tables)

    # -- ending

    async def close(self, *, grace_s: float, last_commit_s: float) -> None:
        """End the incarnation: a bounded grace, a last commit, then the rest is cancelled (point 7)."""
        if not self.is_open:
            return
        self._accepting = False
        if grace_s and self._running:
            await asyncio.wait(set(self._running), timeout=grace_s)
        if last_commit_s:
            await self._last_commit(last_commit_s)
        self.is_open = False
        for running in [*self._running, *([self._loop_task] if self._loop_task else [])]:
            running.cancel()
        for follower in list(self.followers):
            follower.end()
        self._drop()

    async def _last_commit(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self.commit_once()
        except Exception as exc:  # whatever it was: the next incarnation goes by the committed offset
            logger.warning(
                "task %d: the last commit did not happen, its events will be handled again: %s",
                self.partition, reason(exc), extra={"task": self.partition, "fold": True},
            )  # fmt: skip

    def _drop(self) -> None:
        units = [unit for source in self.sources.values() for unit in source.run]
        for unit in units:
            unit.finished = True  # what its handler still does changes nothing
        self._worker.bounds.bytes_held(-sum(unit.size for unit in units))
        for source in self.sources.values():
            source.run.clear()
        self._last_of_key.clear()
        self.overlay.clear()

    async def ended(self) -> None:
        """Wait until the last commit thread of this incarnation has returned; then close the databases."""
        under_way = self._commit_under_way
        if under_way is not None and not under_way.done():
            await asyncio.wait([under_way])
        if under_way is not None and under_way.done() and not under_way.cancelled():
            under_way.exception()  # seen by whoever awaited it, or a zombie's: either way no longer news
        await asyncio.get_running_loop().run_in_executor(None, self._close_files)

    def _close_files(self) -> None:
        self._committer.producer.close()
        self._stores.close()


def _keep_only_the_first(chosen: list[list[Unit]]) -> None:
    """Leave the run that begins with the earliest unit; its key's earlier units are not in another one."""
    first = min((run[0].number for run in chosen if run), default=0)
    for run in chosen:
        if run and run[0].number != first:
            run.clear()


class HandlerFailed(ExactlyOnceError):
    """Raised when a handler failed on every try and the application did not take it: the worker stops."""


def _where(unit: Unit) -> str:
    return f"{unit.event.topic}-{unit.event.partition}@{unit.event.offset}"
