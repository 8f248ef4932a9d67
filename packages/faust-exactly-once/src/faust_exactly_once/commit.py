"""The commit of a task: the one place where its order stands."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .counters import RECORD, summed
from .membership import Membership
from .options import Options
from .units import Outgoing, Unit

Changes = dict[str, dict[bytes, bytes | None]]
CommittedValue = Callable[[str, bytes], bytes | None]


class TransactionalProducer(Protocol):
    """What the commit needs of a producer; every call blocks, so it belongs in a thread.

    The numbers are the steps of `Committer.commit`.
    """

    def init_transactions(self) -> None:
        """Fence earlier producers of the id, ending their transaction (InitProducerId)."""

    def begin_transaction(self) -> None:
        """1: begin a transaction."""

    def send(self, records: Iterable[Outgoing]) -> None:
        """2: queue records."""

    def send_changes(self, topic: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """3: queue one changelog record per key."""

    def confirm(self) -> dict[str, int]:
        """4: wait for every delivery; per changelog topic the offset after its last record."""

    def add_offsets(self, offsets: Mapping[tuple[str, int], int], membership: Membership) -> None:
        """5: add the offsets under the member's generation."""

    def commit_transaction(self) -> None:
        """6: commit the transaction."""

    def abort_transaction(self) -> None:
        """Abort the transaction."""

    def close(self) -> None:
        """End the producer without touching a transaction."""


class Stores(Protocol):
    """Where the committed values of a task go."""

    def apply(self, changes: Changes, reached: Mapping[str, int]) -> None:
        """Write the values of each table with the changelog offset they reach."""


@dataclass(frozen=True, slots=True)
class CommitBatch:
    """What one transaction holds; the same object is sent again after a definite abort (point 9a).

    Attributes:
        units: the chosen units in admission order.
        records: what they send, in that order.
        changes: per table the last value of each changed key; of counters the new sums.
        offsets: per source (topic, partition) the offset to continue at.
    """

    units: list[Unit]
    records: list[Outgoing]
    changes: Changes
    offsets: dict[tuple[str, int], int]


def make_commit_batch(
    units: list[Unit], offsets: dict[tuple[str, int], int], committed: CommittedValue
) -> CommitBatch:
    """Collect what the units did, a later write of a key replacing an earlier one.

    What they counted is added to the committed sums here, once: whoever sends the batch again sends the
    same sums. `committed` must be what the commit before this one has left.
    """
    records: list[Outgoing] = []
    changes: defaultdict[str, dict[bytes, bytes | None]] = defaultdict(dict)
    sums: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for unit in units:  # once: what they hold is no longer in the CPU's cache
        records += unit.sends
        for table, key, value in unit.writes:
            changes[table][key] = value
        for table, counted in unit.counted:
            numbers = sums[table]
            for name, number in counted:
                numbers[name] += number
    for table, added in sums.items():
        changes[table] = {RECORD: summed(committed(table, RECORD), added)}
    return CommitBatch(units, records, dict(changes), offsets)


@dataclass(frozen=True, slots=True)
class Committer:
    """Commits the batches of one task epoch; runs in a thread, one commit at a time."""

    producer: TransactionalProducer
    stores: Stores
    partition: int
    membership: Membership
    changelogs: Mapping[str, str]
    options: Options

    def commit(self, batch: CommitBatch) -> None:
        """Commit in this order; a crash between any two steps loses nothing and doubles nothing.

        1. begin the transaction
        2. send the units' records
        3. send one changelog record per changed key, in the task's partition
        4. wait until every delivery is confirmed
        5. add the source offsets, under the member's generation
        6. commit the transaction
        7. write the values into RocksDB, with the changelog offset they reach
        (8. release the uncommitted state: `CommitLoop`, on the event loop)

        Raises:
            TransactionAborted: nothing happened; `batch` may be sent again.
            TaskFenced, MembershipLost: nothing happened; another worker owns the task.
            OutcomeUnknown: steps 1 to 6 may have happened.
            StoreFailed: step 7 failed; steps 1 to 6 happened.
        """
        producer, probe = self.producer, self.options.probe
        probe("before_send")
        producer.begin_transaction()  # 1
        producer.send(batch.records)  # 2
        probe("between_sends")
        for table, changes in batch.changes.items():  # 3
            producer.send_changes(self.changelogs[table], self.partition, changes)
        reached = producer.confirm()  # 4
        probe("before_offsets")
        producer.add_offsets(batch.offsets, self.membership)  # 5
        probe("before_commit")
        producer.commit_transaction()  # 6
        probe("after_commit")
        if batch.changes:
            self.stores.apply(batch.changes, self._positions(reached))  # 7
        probe("after_store")

    def _positions(self, reached: Mapping[str, int]) -> dict[str, int]:
        return {table: reached[topic] for table, topic in self.changelogs.items() if topic in reached}
