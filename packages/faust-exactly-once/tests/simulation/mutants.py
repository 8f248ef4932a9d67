"""Defects put into the layer, one each: what the simulation must find."""
# ruff: noqa: SLF001 - a defect is put where no public name leads

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from faust_exactly_once import commit, commit_loop, opening, recovery, selection, task_facts
from faust_exactly_once.batch import Batch
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.commit import CommitBatch, Committer
from faust_exactly_once.commit_loop import CommitLoop
from faust_exactly_once.counters import RECORD
from faust_exactly_once.database import NO_STATE
from faust_exactly_once.dispatcher import Dispatcher
from faust_exactly_once.errors import OutcomeUnknown, TransactionAborted
from faust_exactly_once.facts import LogEnds
from faust_exactly_once.key_queues import KeyQueues
from faust_exactly_once.membership import Membership
from faust_exactly_once.opening import Opening
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.recovery import Recovery
from faust_exactly_once.source import Source
from faust_exactly_once.task_facts import TaskFacts
from faust_exactly_once.task_stores import TaskStores
from faust_exactly_once.units import Unit

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect.

    Attributes:
        put_in: says what of the layer is replaced by what.
        faults: the kinds of faults that bring it out; empty: all.
        first_seed: where the search begins.
    """

    put_in: Callable[[], list[Patch]]
    faults: tuple[str, ...] = ()
    first_seed: int = 0

    @property
    def name(self) -> str:
        """Its name."""
        return self.put_in.__name__

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The layer has the defect."""
        with ExitStack() as stack:
            for owner, name, stand_in in self.put_in():
                stack.enter_context(patch.object(owner, name, stand_in, create=True))
            yield


def everywhere(name: str, stand_in: Any) -> list[Patch]:
    """What both modules of an opening import."""
    return [(module, name, stand_in) for module in (opening, task_facts)]


def failure_acknowledges() -> list[Patch]:
    """A handler's exception acknowledges its event with half of its output (defect 7)."""

    async def no_second_try(*_: Any) -> None:
        return None

    return [(KeyQueues, "_try_again", no_second_try)]


def store_before_commit() -> list[Patch]:
    """The database is written before the transaction is committed (defect 4)."""

    def committed(self: Committer, batch: CommitBatch) -> None:
        producer = self.producer
        producer.begin_transaction()
        producer.send(batch.records)
        for table, changes in batch.changes.items():
            producer.send_changes(self.changelogs[table], self.partition, changes)
        reached = producer.confirm()
        if batch.changes:
            self.stores.apply(
                batch.changes, {t: reached[log] for t, log in self.changelogs.items() if log in reached}
            )
        self.options.probe("before_commit")
        producer.add_offsets(batch.offsets, self.membership)
        producer.commit_transaction()

    return [(Committer, "commit", committed)]


def changelog_left_out() -> list[Patch]:
    """A commit carries offsets without the table changes (defect 3)."""

    def committed(self: Committer, batch: CommitBatch) -> None:
        _commit(self, replace(batch, changes={}))

    return [(Committer, "commit", committed)]


def no_confirmation() -> list[Patch]:
    """A transaction is committed although a record was refused, as aiokafka does."""

    def confirm(self: ConfluentProducer) -> dict[str, int]:
        producer: Any = self._live()
        producer.flush(self.timeout_s)
        producer.forgive()
        return self._deliveries.reached

    return [(ConfluentProducer, "confirm", confirm)]


def aborted_in_doubt() -> list[Patch]:
    """What is on its way is given up, the transaction aborted, all sent again under the same epoch."""

    def confirm(self: ConfluentProducer) -> dict[str, int]:
        try:
            return _confirm(self)
        except OutcomeUnknown as exc:
            self._live().purge()
            self.abort_transaction()
            raise TransactionAborted(str(exc)) from exc

    return [(ConfluentProducer, "confirm", confirm)]


def no_generation() -> list[Patch]:
    """Offsets are committed as an outsider (defect 14)."""

    def outsider(self: ConfluentProducer, offsets: Any, membership: Membership) -> None:
        _offsets(self, offsets, Membership(membership.group, -1, ""))

    return [(ConfluentProducer, "add_offsets", outsider)]


def fence_after_reading() -> list[Patch]:
    """The producer is opened at the first commit, so that offsets are read before the fence."""

    def begin(self: ConfluentProducer) -> None:
        if self._producer is None:
            _open(self)
        _begin(self)

    return [
        (ConfluentProducer, "init_transactions", lambda self: None),
        (ConfluentProducer, "begin_transaction", begin),
    ]


def no_fence() -> list[Patch]:
    """Neither of the two fences keeps a paused worker's transaction out of what is read."""
    return no_generation() + fence_after_reading()


def ends_before_fence() -> list[Patch]:
    """The changelogs' ends are read before the fence; what the offsets say of them is not looked at."""
    early: dict[Any, dict[Any, LogEnds]] = {}

    async def open_late(self: Opening, assigned: Any, member: Any) -> None:
        logs = [(self._changelog(name), assigned.partition) for name in self._app.tables]
        early[self._cluster, assigned.partition] = await self._in_thread(self._cluster.log_ends, logs)
        await _open_task(self, assigned, member)

    def known(cluster: Any, partitions: Any, say: Any, *, also: Any = (), **_: Any) -> dict[Any, LogEnds]:
        now: dict[Any, LogEnds] = cluster.log_ends([*partitions, *also])
        return now | early[cluster, partitions[0][1]]

    believed = (TaskFacts, "_refuse_a_lagging_leader", lambda *_: None)
    return [(Opening, "open", open_late), *everywhere("wait_stable", known), believed]


def unstable_offsets() -> list[Patch]:
    """Committed offsets are read while a transaction is about to move them (defect 21)."""

    def reader(self: Cluster, group: str) -> Any:
        found: Any = _reader(self, group)
        found.asks_for_stable = False
        return found

    believed = (TaskFacts, "_are_stale", lambda *_: False)  # what the changelogs say of them is not looked at
    return [(Cluster, "_reader", reader), believed]


def past_what_is_queued() -> list[Patch]:
    """The position is committed although a batch of it waits for its agent."""

    def position(self: Source) -> int | None:
        at = self.committed if self.committed is not None else -1
        return self.position if not self.run and self.position > at else None

    return [(Source, "idle_position", position)]


def dropped_batch_counts() -> list[Patch]:
    """A plain agent's batch counts as admitted when its epoch ends."""

    def end(self: Batch) -> None:
        self._source.queued -= 1
        self._task.moved()

    return [(Batch, "end", end)]


def uncommitted_state_released() -> list[Patch]:
    """An uncommitted value leaves with a commit although a later unit has changed it."""

    def release(self: CommitLoop, batch: CommitBatch) -> None:
        _release(self, batch)
        for unit in batch.units:
            for table, key, _ in unit.writes:
                self._task.uncommitted[table].pop(key, None)

    return [(CommitLoop, "_release", release)]


def commit_after_doubt() -> list[Patch]:
    """After a commit that may have happened the same units are committed in a last commit."""
    return [(CommitLoop, "_in_doubt", property(lambda self: False, lambda self, value: None))]


def read_to_the_end() -> list[Patch]:
    """Recovery reads to the high watermark, aborted records included (near defect 5)."""

    def config(self: Recovery) -> dict[str, Any]:
        return _reader_config(self) | {"isolation.level": "read_uncommitted"}

    def known(cluster: Any, partitions: Any, say: Any, *, also: Any = (), **_: Any) -> dict[Any, LogEnds]:
        ends: Mapping[Any, LogEnds] = cluster.log_ends([*partitions, *also])
        return {tp: LogEnds(one.start, one.high, one.high) for tp, one in ends.items()}

    return [(Recovery, "_reader_config", config), *everywhere("wait_stable", known)]


def not_cut() -> list[Patch]:
    """A unit may commit before the one of its key that it followed."""
    return [(selection, "_cut", lambda chosen: False)]


def handed_over_twice() -> list[Patch]:
    """An offset that the fetcher delivers again is handled again (defect 8)."""

    def admit(self: KeyQueues, source: Source, event: Any, handler: Any) -> bool:
        source.admit_from = min(source.admit_from, event.offset)
        return _admit(self, source, event, handler)

    return [(KeyQueues, "admit", admit)]


def bare_fetches() -> list[Patch]:
    """A fetch carries neither its epoch nor the position it began at."""

    def batches(self: Dispatcher, fetched: Mapping[Any, Any]) -> Any:
        here = self._state.assigned_tasks.items()
        epochs = {p: assigned.task.epoch for p, assigned in here if assigned.task is not None}
        bare = {tp: got._replace(epoch=epochs.get(tp[1], -1), start=0) for tp, got in fetched.items()}
        return _batches(self, bare)

    return [(Dispatcher, "batches", batches)]


def never_rebuilt() -> list[Patch]:
    """A database is topped up although deletions may have been compacted away meanwhile."""

    def reason(item: Any, now_ms: int) -> str | None:
        return NO_STATE if item.store.identity is None else None

    return [(recovery, "why_not_a_prefix", reason)]


def store_failure_forgotten() -> list[Patch]:
    """A refused write to the database is forgotten (against 9c)."""

    def apply(self: TaskStores, changes: Any, reached: Any) -> None:
        for table, values in changes.items():
            try:
                self.tables[table].apply(values, reached[table])
            except Exception as exc:
                del exc

    return [(TaskStores, "apply", apply)]


def one_too_far() -> list[Patch]:
    """The committed offset is one too large (near defects 10, 11)."""

    def make_commit_batch(units: Any, offsets: Mapping[Any, int], committed: Any) -> CommitBatch:
        too_far = {tp: at + 1 if units else at for tp, at in offsets.items()}
        return _make_commit_batch(units, too_far, committed)

    return [(commit_loop, "make_commit_batch", make_commit_batch)]


def emptied_units_have_counted() -> list[Patch]:
    """What a failed try has counted counts."""

    def empty(self: Unit) -> None:
        counted = self.counted
        _empty(self)
        self.counted = counted

    return [(Unit, "empty", empty)]


def sums_of_this_incarnation() -> list[Patch]:
    """A commit adds to the sums of its own process, as if nobody else had ever committed."""
    sums: dict[int, dict[str, bytes | None]] = {}

    def make_commit_batch(units: Any, offsets: Any, committed: Any) -> CommitBatch:
        mine = sums.setdefault(id(committed.__self__), {})
        batch = _make_commit_batch(units, offsets, lambda table, key: mine.get(table) if units else None)
        mine.update({t: values[RECORD] for t, values in batch.changes.items() if RECORD in values})
        return batch

    return [(commit_loop, "make_commit_batch", make_commit_batch)]


_commit = Committer.commit
_offsets = ConfluentProducer.add_offsets
_confirm = ConfluentProducer.confirm
_open = ConfluentProducer.init_transactions
_begin = ConfluentProducer.begin_transaction
_open_task = Opening.open
_reader = Cluster._reader
_release = CommitLoop._release
_admit = KeyQueues.admit
_reader_config = Recovery._reader_config
_batches = Dispatcher.batches
_make_commit_batch = commit.make_commit_batch
_empty = Unit.empty

MUTANTS = [
    Mutant(failure_acknowledges),
    Mutant(store_before_commit),
    Mutant(changelog_left_out),
    Mutant(no_confirmation, ("refuse",)),
    Mutant(aborted_in_doubt),
    Mutant(no_generation, ("slow_open",), 40),
    Mutant(no_fence, ("freeze_at",), 24),
    Mutant(ends_before_fence, ("slow_markers", "rebalance"), 40),
    Mutant(unstable_offsets, ("slow_markers", "rebalance")),
    Mutant(past_what_is_queued),
    Mutant(dropped_batch_counts, ("rebalance",)),
    Mutant(uncommitted_state_released),
    Mutant(commit_after_doubt, ("disk", "rebalance"), 60),
    Mutant(read_to_the_end, ("kill_at", "rebalance"), 15),
    Mutant(not_cut, (), 15),
    Mutant(handed_over_twice),
    Mutant(bare_fetches, ("rebalance",), 65),
    Mutant(never_rebuilt, ("restore",)),
    Mutant(store_failure_forgotten, ("disk",)),
    Mutant(one_too_far),
    Mutant(emptied_units_have_counted),
    Mutant(sums_of_this_incarnation, ("rebalance",)),
]
