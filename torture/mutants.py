"""Puts a defect of plain Faust back into the layer, one switch each: a torture that stays green is no test.

The numbers are those of docs/defects.md. Only a worker of a torture run installs one, before it builds its
app.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Producer

from faust_exactly_once import commit_loop, task_facts
from faust_exactly_once.commit import CommitBatch, make_commit_batch
from faust_exactly_once.commit_loop import CommitLoop
from faust_exactly_once.database import PartitionStore
from faust_exactly_once.key_queues import KeyQueues
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.recovery import Recovery, start_offsets
from faust_exactly_once.task_stores import TaskStores
from faust_exactly_once.units import Outgoing, Unit

LATE_S: Final = 0.3


def install(name: str) -> None:
    """Put the defect in; raises KeyError with the names for one that is not known."""
    if name not in MUTANTS:
        raise KeyError(f"{name} is no mutant, these are: {', '.join(MUTANTS)}")
    MUTANTS[name]()


def outputs_outside_the_transaction() -> None:
    """1: what a unit sends goes out at once through a plain producer."""
    plain = _PlainProducer()

    def send(self: ConfluentProducer, records: Iterable[Outgoing]) -> None:
        for record in records:
            plain.of(self).produce(record.topic, record.value, record.key, headers=list(record.headers or ()))

    _replace(ConfluentProducer, "send", send)


def outputs_without_their_offset() -> None:
    """2: no barrier: what is finished behind a gap is committed now, its offset some day."""
    choose: Any = CommitLoop._choose

    def choose_all(self: CommitLoop) -> CommitBatch | None:
        chosen: CommitBatch | None = choose(self)
        if chosen is None:
            return None
        taken = set(chosen.units)
        runs = [unit for source in self._task.sources.values() for unit in source.run]
        early = [unit for unit in runs if unit.finished and unit not in taken]
        units = sorted([*chosen.units, *early], key=lambda unit: unit.number)
        batch = make_commit_batch(units, chosen.offsets, self._task.committed_value)
        for unit in early:
            unit.sends, unit.writes, unit.counted = [], [], ()
        return CommitBatch(chosen.units, batch.records, batch.changes, batch.offsets)

    _replace(CommitLoop, "_choose", choose_all)


def changelog_after_the_commit() -> None:
    """3: changelog records are sent later, by a thread that no commit waits for."""
    plain = _PlainProducer()

    def send_changes(
        self: ConfluentProducer, topic: str, partition: int, changes: Mapping[bytes, bytes | None]
    ) -> None:
        def later() -> None:
            time.sleep(LATE_S)
            for key, value in changes.items():
                plain.of(self).produce(topic, value, key, partition=partition)

        threading.Thread(target=later, daemon=True).start()

    def apply(self: TaskStores, changes: Any, reached: Mapping[str, int]) -> None:
        for table, values in changes.items():
            store = self.tables[table]
            store.apply(values, store.reached.position)

    _replace(ConfluentProducer, "send_changes", send_changes)
    _replace(TaskStores, "apply", apply)


def store_before_the_commit() -> None:
    """4: RocksDB is written at once; nothing takes it back."""
    write: Any = Unit.write

    def write_at_once(self: Unit, table: str, key: bytes, value: bytes | None) -> None:
        write(self, table, key, value)
        task: Any = self.task
        store: PartitionStore = task._stores.tables[table]
        store.apply({key: value}, store.reached.position)

    _replace(Unit, "write", write_at_once)


def recovery_skipped() -> None:
    """5: the changelog's end is not known after an assignment, so nothing is read of it."""

    def run(self: Recovery, plans: Any, stopped: Any) -> None:
        pass

    _replace(Recovery, "run", run)


def offsets_dropped_at_a_rebalance() -> None:
    """6: the acknowledgements are dropped before the last commit, its output is not."""
    last_commit: Any = CommitLoop.last_commit

    async def without_offsets(self: CommitLoop, limit_s: float) -> None:
        choose: Any = self._choose

        def chosen() -> CommitBatch | None:
            batch: CommitBatch | None = choose()
            return None if batch is None else CommitBatch(batch.units, batch.records, batch.changes, {})

        self._choose = chosen  # type: ignore[method-assign]
        await last_commit(self, limit_s)

    def add_offsets(self: ConfluentProducer, offsets: Any, membership: Any) -> None:
        if offsets:
            real(self, offsets, membership)

    real: Any = ConfluentProducer.add_offsets
    _replace(ConfluentProducer, "add_offsets", add_offsets)
    _replace(CommitLoop, "last_commit", without_offsets)


def exceptions_acknowledge() -> None:
    """7: an exception in a handler acknowledges the event, with half of what it did."""

    async def give_up(self: KeyQueues, unit: Unit, handler: Any, exc: Exception) -> None:
        pass

    _replace(KeyQueues, "_try_again", give_up)


def last_event_again() -> None:
    """8: a task that opens is handed the last handled event once more."""

    def one_too_early(*args: Any, **kwargs: Any) -> Any:
        return {tp: max(0, at - 1) for tp, at in start_offsets(*args, **kwargs).items()}

    _replace(task_facts, "start_offsets", one_too_early)


def commit_past_a_gap() -> None:
    """10: an unfinished event below finished ones is taken for handled."""

    def choose(runs: Any, limit: int) -> list[list[Unit]]:
        return [[unit for unit in list(run)[:limit] if unit.finished] for run in runs]

    _replace(commit_loop, "choose", choose)


class _PlainProducer:
    """One producer without transactions, made when it is first needed."""

    def __init__(self) -> None:
        self._producer: Producer | None = None
        self._lock = threading.Lock()

    def of(self, other: ConfluentProducer) -> Producer:
        """With the same brokers as the transactional one."""
        with self._lock:
            if self._producer is None:
                servers = other._config["bootstrap.servers"]
                self._producer = Producer({
                    "bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 2,
                })  # fmt: skip
        return self._producer


def _replace(owner: Any, name: str, by: Any) -> None:
    """Refuses to replace what is not there: a mutant of a renamed method would be the product as it is."""
    getattr(owner, name)
    setattr(owner, name, by)


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    "1-outputs-outside-the-transaction": outputs_outside_the_transaction,
    "2-outputs-without-their-offset": outputs_without_their_offset,
    "3-changelog-after-the-commit": changelog_after_the_commit,
    "4-store-before-the-commit": store_before_the_commit,
    "5-recovery-skipped": recovery_skipped,
    "6-offsets-dropped-at-a-rebalance": offsets_dropped_at_a_rebalance,
    "7-exceptions-acknowledge": exceptions_acknowledge,
    "8-last-event-again": last_event_again,
    "10-commit-past-a-gap": commit_past_a_gap,
}
