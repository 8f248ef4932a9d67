"""One partition's log as its leader keeps it: batches with producer id, epoch, sequence; markers."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import OFFSET_INVALID, KafkaError

from faust_exactly_once.facts import TP
from faust_exactly_once.units import Headers

OK = 0
REMEMBERED_BATCHES = 5  # of each producer, as in Kafka
Values = dict[bytes, bytes]


class StoredOffset(NamedTuple):
    """An offset with the metadata that was committed beside it."""

    offset: int
    note: str = ""


NO_OFFSET = StoredOffset(OFFSET_INVALID)


class Content(NamedTuple):
    """What a client puts into a record."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction, from its first partition to its last marker; `decision` is "", "commit" or "abort"."""

    transactional_id: str
    pid: int
    epoch: int
    decision: str = ""
    records: "list[tuple[TP, Content]]" = field(default_factory=list)
    offsets: dict[TP, StoredOffset] = field(default_factory=dict)
    generation: int = -1


class Entry(NamedTuple):
    """What stands at an offset: a record, or (without content) a transaction's marker."""

    content: Content | None
    transaction: Transaction | None
    at_s: float


@dataclass(slots=True)
class ProducerState:
    """What a leader knows of a producer id; batches as (first sequence, records, first offset)."""

    epoch: int
    next_sequence: int = 0
    batches: "deque[tuple[int, int, int]]" = field(default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES))


class Log:
    """The entries of a partition; the index of an entry is its offset."""

    def __init__(self, tp: TP) -> None:
        self.tp = tp
        self.entries: list[Entry] = []
        self.start = 0
        self.open: dict[int, int] = {}
        self.compacted: set[int] = set()
        self._producers: dict[int, ProducerState] = {}
        self._met_s: dict[int, float] = {}

    @property
    def high(self) -> int:
        """The high watermark."""
        return len(self.entries)

    @property
    def stable(self) -> int:
        """The last stable offset: the first of an open transaction, else the high watermark."""
        return min(self.open.values(), default=len(self.entries))

    def append(
        self, pid: int, epoch: int, sequence: int, records: Sequence[Content], transaction: Transaction,
        now_s: float,
    ) -> tuple[int, int]:  # fmt: skip
        """A batch of an idempotent producer.

        Returns:
            error code, first offset. A batch that is there already gets the offset it has.
        """
        state = self._producers.get(pid)
        if state is None:
            state = self._producers[pid] = ProducerState(epoch)
        if epoch < state.epoch:
            return KafkaError.INVALID_PRODUCER_EPOCH, -1
        if epoch > state.epoch:
            if sequence != 0:
                return KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            state = self._producers[pid] = ProducerState(epoch)
        for first, count, offset in state.batches:
            if (first, count) == (sequence, len(records)):
                return OK, offset
        if sequence != state.next_sequence:
            return KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        state.batches.append((sequence, len(records), self.high))
        state.next_sequence += len(records)
        return OK, self._write(records, transaction, now_s)

    def append_foreign(
        self, records: Sequence[Content], transaction: Transaction | None, now_s: float
    ) -> int:
        """Records of a producer that is no part of the simulation; the first one's offset."""
        return self._write(records, transaction, now_s)

    def _write(self, records: Sequence[Content], transaction: Transaction | None, now_s: float) -> int:
        offset = self.high
        if transaction is not None:
            self.open.setdefault(transaction.pid, offset)
            transaction.records += [(self.tp, record) for record in records]
        self.entries += [Entry(record, transaction, now_s) for record in records]
        return offset

    def mark(self, transaction: Transaction, epoch: int, now_s: float) -> None:
        """Write the marker of a decided transaction; from here on older epochs are refused."""
        state = self._producers.get(transaction.pid)
        if state is None or epoch > state.epoch:
            self._producers[transaction.pid] = ProducerState(epoch)
        self.open.pop(transaction.pid, None)
        self.entries.append(Entry(None, transaction, now_s))

    def read(self, start: int, most: int, *, committed: bool) -> tuple[list[tuple[int, Content, float]], int]:
        """Records from an offset on, with the offset to continue at."""
        found: list[tuple[int, Content, float]] = []
        end = self.stable if committed else self.high
        for offset in range(start, end):
            content, transaction, at_s = self.entries[offset]
            if content is None or offset in self.compacted:
                continue
            if committed and transaction is not None and transaction.decision != "commit":
                continue
            if len(found) == most:
                return found, offset
            found.append((offset, content, at_s))
        return found, max(start, end)

    def committed(self, start: int, end: int) -> Iterator[tuple[int, Content]]:
        """What a reader may ever see between two offsets, compaction aside."""
        for offset in range(start, min(end, self.high)):
            content, transaction, _ = self.entries[offset]
            if content is not None and (transaction is None or transaction.decision == "commit"):
                yield offset, content

    def fold(self, end: int) -> Values:
        """The table that the committed records below an offset amount to."""
        values: Values = {}
        for _, content in self.committed(0, end):
            key = content.key or b""
            if content.value is None:
                values.pop(key, None)
            else:
                values[key] = content.value
        return values

    def replaced(self, end: int) -> set[bytes]:
        """Keys whose value below an offset compaction may have taken away, as a later record replaces it."""
        last = {content.key or b"": offset for offset, content in self.committed(0, end)}
        later = {content.key or b"" for _, content in self.committed(end, self.high)}
        return {key for key, offset in last.items() if offset in self.compacted and key in later}

    def undecided(self, end: int) -> bool:
        """True if below an offset somebody's transaction may still end either way."""
        return any(e.transaction is not None and not e.transaction.decision for e in self.entries[:end])

    def compact(self, now_s: float, kept_s: float) -> None:
        """Drop what later records of the same key replace; deletions `kept_s` after they are first met.

        So it is since KIP-534: whoever reads a value has so long to come to its deletion.
        """
        last: dict[bytes | None, int] = {}
        for offset, content in self.committed(self.start, self.stable):
            if content.key in last:
                self.compacted.add(last[content.key])
            last[content.key] = offset
            if content.value is None and now_s >= self._met_s.setdefault(offset, now_s) + kept_s:
                self.compacted.add(offset)
