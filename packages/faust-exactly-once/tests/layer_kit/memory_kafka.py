"""A Kafka in memory, with a transactional producer whose commits end as the test wants."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faust_exactly_once.database import PartitionStore, Reached
from faust_exactly_once.errors import (
    MembershipLost,
    OutcomeUnknown,
    RecordRefused,
    StoreFailed,
    TaskFenced,
    TopicUnknown,
    TransactionAborted,
)
from faust_exactly_once.facts import TP, LogEnds
from faust_exactly_once.membership import Membership
from faust_exactly_once.units import Headers, Outgoing

ENDINGS = (
    "commits", "aborts", "refuses a record", "loses the membership", "is fenced",
    "times out before committing", "times out after committing", "commits but the store fails",
)  # fmt: skip
Values = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """A source record as a handler sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None = b""
    timestamp: int = 0
    headers: Headers = ()


@dataclass(slots=True)
class Transaction:
    """One transaction; `changes` are (changelog topic, key, value)."""

    records: list[Outgoing] = field(default_factory=list)
    changes: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)
    offsets: dict[TP, int] = field(default_factory=dict)


class MemoryKafka:
    """Source logs, changelogs, group offsets, every committed transaction.

    A None in a log is a transaction marker, which takes an offset but is never delivered. `ending` says how
    the next commit ends; a record whose value is one of `refused` is refused always.
    """

    def __init__(self, sources: Iterable[TP]) -> None:
        self.logs: dict[TP, list[Record | None]] = {tp: [] for tp in sources}
        self.changelogs: dict[str, list[tuple[bytes, bytes | None] | None]] = {}
        self.committed: dict[TP, int | None] = dict.fromkeys(self.logs)
        self.transactions: list[Transaction] = []
        self.epoch = 0
        self.ending = "commits"
        self.refused: set[bytes | None] = set()

    def append(self, tp: TP, key: bytes | None, marker: bool) -> Record:
        """A committed source record; `marker`: the end of its producer's transaction follows it."""
        record = Record(*tp, len(self.logs[tp]), key, b"%s-%d" % (tp[0].encode(), len(self.logs[tp])))
        self.logs[tp] += [record, None] if marker else [record]
        return record

    def events(self) -> list[Record]:
        """Every source record."""
        return [record for log in self.logs.values() for record in log if record is not None]

    def ends(self) -> dict[TP, LogEnds]:
        """First offset, last stable offset, high watermark of each source partition."""
        return {tp: LogEnds(0, len(log), len(log)) for tp, log in self.logs.items()}

    def take(self, transaction: Transaction) -> None:
        """Commit a transaction: all of it is visible at once, a marker follows in each changelog."""
        self.transactions.append(transaction)
        for topic, key, value in transaction.changes:
            self.changelogs.setdefault(topic, []).append((key, value))
        for topic in {topic for topic, _, _ in transaction.changes}:
            self.changelogs[topic].append(None)
        self.committed.update(transaction.offsets)

    def fold(self, topic: str, upto: int | None = None) -> Values:
        """The table that a changelog's records below an offset amount to."""
        values: Values = {}
        for record in self.changelogs.get(topic, [])[:upto]:
            if record is None:
                continue
            if record[1] is None:
                values.pop(record[0], None)
            else:
                values[record[0]] = record[1]
        return values


class MemoryProducer:
    """A `TransactionalProducer` of a `MemoryKafka`."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._epoch = 0
        self._open: Transaction | None = None
        self._closed = False
        self._unusable = False
        self.init_transactions()

    def init_transactions(self) -> None:
        """Fence earlier producers, dropping their transaction."""
        self._kafka.epoch += 1
        self._epoch = self._kafka.epoch

    def begin_transaction(self) -> None:
        """Begin a transaction; a producer with an unknown or open one refuses, as librdkafka does."""
        self._check()
        if self._unusable:
            raise OutcomeUnknown("the last commit is not resolved")
        assert self._open is None, "a transaction within a transaction"
        self._open = Transaction()

    def send(self, records: Iterable[Outgoing]) -> None:
        """Queue records."""
        self._live().records += records

    def send_changes(self, topic: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Queue one changelog record per key."""
        self._live().changes += [(topic, key, value) for key, value in changes.items()]

    def confirm(self) -> dict[str, int]:
        """Per changelog topic the offset after its last record."""
        transaction = self._live()
        if self._kafka.ending == "aborts":
            self.abort_transaction()
            raise TransactionAborted("as the test wants")
        if self._kafka.ending == "knows no topic":  # no ending of its own: aborted, as above
            self.abort_transaction()
            raise TopicUnknown("as the test wants")
        refused = any(record.value in self._kafka.refused for record in transaction.records)
        if refused or self._kafka.ending == "refuses a record":
            self.abort_transaction()
            raise RecordRefused("as the test wants")
        reached: dict[str, int] = {}
        for topic, _, _ in transaction.changes:
            reached[topic] = reached.get(topic, len(self._kafka.changelogs.get(topic, ()))) + 1
        return reached

    def add_offsets(self, offsets: Mapping[TP, int], membership: Membership) -> None:
        """Add the offsets."""
        if self._kafka.ending == "loses the membership":
            self.abort_transaction()
            raise MembershipLost("as the test wants")
        if self._kafka.ending == "is fenced":
            self.init_transactions()
            self._epoch -= 1
        self._live().offsets.update(offsets)

    def commit_transaction(self) -> None:
        """Commit, or not, or nobody knows."""
        transaction, self._open = self._live(), None
        if self._kafka.ending == "times out before committing":
            self._unusable = True
            raise OutcomeUnknown("as the test wants: it did not happen")
        self._kafka.take(transaction)
        if self._kafka.ending == "times out after committing":
            self._unusable = True
            raise OutcomeUnknown("as the test wants: it happened")

    def abort_transaction(self) -> None:
        """Drop the transaction."""
        self._open = None

    def close(self) -> None:
        """End the producer."""
        self._closed = True

    def _check(self) -> None:
        if self._closed or self._epoch != self._kafka.epoch:
            self._open = None
            raise TaskFenced("another producer has the id, or this one is closed")

    def _live(self) -> Transaction:
        self._check()
        assert self._open is not None, "no transaction"
        return self._open


class MemoryDisk:
    """What of a database outlives its process."""

    def __init__(self) -> None:
        self.values: Values = {}
        self.position = 0


class MemoryStore(PartitionStore):
    """A `PartitionStore` on a `MemoryDisk`, for speed; refuses one write where the Kafka wants it."""

    def __init__(self, disk: MemoryDisk, kafka: MemoryKafka) -> None:
        super().__init__(Path("memory"))
        self._memory, self._kafka = disk, kafka
        self.reached = Reached(disk.position, 0)
        self._is_open = True

    def open(self) -> str | None:
        """Nothing to do."""
        return None

    def get(self, key: bytes) -> bytes | None:
        """The committed value, or None."""
        self._check()
        return self._memory.values.get(key)

    def apply(self, changes: Mapping[bytes, bytes | None], position: int) -> None:
        """Write all or nothing."""
        self._check()
        if self._kafka.ending == "commits but the store fails":
            raise OSError("as the test wants")
        for key, value in changes.items():
            if value is None:
                self._memory.values.pop(key, None)
            else:
                self._memory.values[key] = value
        self._memory.position = position
        self.reached = Reached(position, 0)

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Committed keys and values in key order."""
        self._check()
        return iter(sorted(item for item in self._memory.values.items() if item[0] >= start))

    def check_end(self, last: bytes) -> None:
        """Memory is not damaged."""

    def close(self) -> None:
        """No access any more."""
        self._is_open = False

    def _check(self) -> None:
        if not self._is_open:
            raise StoreFailed("closed")
