"""Reads a broker's log segments from its disk: which transaction each record is in, what became of it.

Formats: kafka.apache.org/documentation, "Record Batch" (version 2) with "Control Batches"; Kafka's
TransactionLogKey/Value.json, OffsetCommitKey/Value.json for the two internal topics.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

Place = tuple[str, int]
"""Topic, partition."""
Record = tuple[bytes, bytes | None, tuple[tuple[str, bytes], ...]]
"""Key, value, headers."""
HEADER = struct.Struct(">qiibIhiqqqhii")  # up to the first record
COMPRESSION, TRANSACTIONAL, CONTROL = 0x07, 0x10, 0x20
PREPARED = (2, 3)  # PrepareCommit, PrepareAbort
COMPLETE = (4, 5)  # CompleteCommit, CompleteAbort
OFFSETS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"


@dataclass(frozen=True, slots=True)
class Written:
    """A record as it lies in the log.

    `transaction` counts the producer's transactions; `marker` is the offset of the control record that ended
    it in this partition, `outcome` what that says: commit or abort; None while the transaction is open.
    """

    place: Place
    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    producer: int
    epoch: int
    transaction: int | None
    marker: int | None
    outcome: str | None

    @property
    def end(self) -> tuple[int, int | None, str | None]:
        """What all records of one transaction have in common."""
        return self.producer, self.transaction, self.outcome


@dataclass(frozen=True, slots=True)
class Batch:
    """A record batch; `marker` is what a control batch says, `at_ms` when its first record was stamped."""

    first: int
    producer: int
    epoch: int
    marker: str | None
    records: list[Record]
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A transaction that came to an end: its partitions, when the coordinator had prepared the end."""

    places: frozenset[Place]
    prepared_ms: int


def log_folder(bootstrap: str) -> Path | None:
    """Where the broker keeps its log, if that is on this machine."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    node = admin.describe_cluster().result(10).nodes[0]
    asked = ConfigResource(ResourceType.BROKER, str(node.id))
    config = admin.describe_configs([asked])[asked].result(10)
    folder = Path(config["log.dirs"].value or "")
    return folder if (folder / f"{OFFSETS}-0").is_dir() else None


def partition_folders(log: Path) -> dict[Place, Path]:
    """The folder of each partition that lies in a log folder, in the order of their names."""
    found: dict[Place, Path] = {}
    for folder in sorted(log.glob("*-[0-9]*")):
        topic, _, partition = folder.name.rpartition("-")
        if partition.isdecimal():  # a partition that is being deleted has more behind its number
            found[topic, int(partition)] = folder
    return found


def transactional_records(log: Path | Mapping[Place, Path], topic: str) -> list[Written]:
    """Every record of a topic that was written in a transaction, with what became of that.

    `log`: the only broker's log folder; of several brokers, each partition's folder at its leader.
    """
    folders = partition_folders(log) if isinstance(log, Path) else log
    found: list[Written] = []
    transactions = _transactions(folders)
    for place in sorted(place for place in folders if place[0] == topic):
        found += _in_partition(place, _batches(folders[place]), transactions)
    return found


def log_end(folder: Path) -> int:
    """The offset behind the last record on disk; 0 for an empty log."""
    end = 0
    for segment in sorted(folder.glob("*.log"))[-2:]:  # the last one may be empty
        data, at = segment.read_bytes(), 0
        end = int(segment.stem)
        while at + HEADER.size <= len(data):
            first, length, _, _, _, _, last, *_ = HEADER.unpack_from(data, at)
            if not length or at + 12 + length > len(data):
                break
            end, at = first + last + 1, at + 12 + length
    return end


def committed_offset(record: Written) -> tuple[str, str, int, int] | None:
    """Group, topic, partition, offset of a record of __consumer_offsets; None if it says something else."""
    version, length = struct.unpack_from(">hh", record.key)
    if version > 1 or record.value is None:
        return None
    at = 4 + length
    [topic_length] = struct.unpack_from(">h", record.key, at)
    [partition] = struct.unpack_from(">i", record.key, at + 2 + topic_length)
    [offset] = struct.unpack_from(">q", record.value, 2)
    topic = record.key[at + 2 : at + 2 + topic_length]
    return record.key[4:at].decode(), topic.decode(), partition, offset


def _in_partition(
    place: Place, batches: Iterable[Batch], transactions: dict[int, list[Ended]]
) -> Iterator[Written]:
    """The n-th marker of a producer ends its n-th transaction among those that took in this partition.

    A broker that died between a marker and the transaction's completion writes the marker once more when it
    is back; such a repeat is older than the preparation of the producer's next end, and ends nothing.
    """
    numbers = {
        producer: deque((number, one.prepared_ms) for number, one in enumerate(ends) if place in one.places)
        for producer, ends in transactions.items()
    }
    waiting: defaultdict[int, list[tuple[int, int, Record]]] = defaultdict(list)
    for batch in batches:
        if batch.marker is None:
            offsets = enumerate(batch.records, batch.first)
            waiting[batch.producer] += [(offset, batch.epoch, record) for offset, record in offsets]
            continue
        left = numbers[batch.producer]
        if batch.producer not in waiting and (not left or batch.at_ms < left[0][1]):
            continue
        number, _ = left.popleft()
        for offset, epoch, record in waiting.pop(batch.producer, []):
            yield Written(place, offset, *record, batch.producer, epoch, number, batch.first, batch.marker)
    for producer, records in waiting.items():
        for offset, epoch, record in records:
            yield Written(place, offset, *record, producer, epoch, None, None, None)


def _transactions(folders: Mapping[Place, Path]) -> dict[int, list[Ended]]:
    """Per producer id its transactions that came to an end, in order."""
    found: dict[int, list[Ended]] = {}
    for place in sorted(place for place in folders if place[0] == TRANSACTIONS):
        said = (
            _transaction(value)
            for batch in _batches(folders[place], transactional=False)
            for _, value, _ in batch.records
            if value is not None
        )
        found |= _ends(said)
    return found


def _ends(said: Iterable[tuple[int, int, Ended]]) -> dict[int, list[Ended]]:
    """Of what one coordinator logged (producer id, state, what it decided about) the ends that came about.

    Where too few replicas are in sync a decision stays in the log, though the coordinator counts it as not
    made: it is decided once more, perhaps otherwise, or the transaction goes on. The last decision before the
    completion is the one that the markers carry. A completion may be logged twice for the same reason.
    """
    ends: defaultdict[int, list[Ended]] = defaultdict(list)
    decided: dict[int, Ended] = {}
    for producer, state, ended in said:
        if state in PREPARED:
            decided[producer] = ended
        elif state in COMPLETE:
            if producer in decided:
                ends[producer].append(decided.pop(producer))
        else:
            decided.pop(producer, None)
    for producer, ended in decided.items():
        ends[producer].append(ended)  # its markers may be under way
    return dict(ends)


def _transaction(value: bytes) -> tuple[int, int, Ended]:
    """Producer id, state, partitions with the time of that state from a TransactionLogValue of version 1."""
    version, producer, _, _, state = struct.unpack_from(">hqhib", value)
    if version != 1:
        raise ValueError(f"a transaction log value of version {version} cannot be read")
    topics, at = _uvarint(value, 17)
    places: set[Place] = set()
    for _ in range(topics - 1):
        length, at = _uvarint(value, at)
        topic, at = value[at : at + length - 1].decode(), at + length - 1
        count, at = _uvarint(value, at)
        places |= {(topic, p) for p in struct.unpack_from(f">{count - 1}i", value, at)}
        at += 4 * (count - 1) + 1  # the tagged fields: none
    [updated_ms] = struct.unpack_from(">q", value, at)
    return producer, state, Ended(frozenset(places), updated_ms)


def _batches(folder: Path, *, transactional: bool = True) -> Iterator[Batch]:
    for segment in sorted(folder.glob("*.log")):
        data, at = segment.read_bytes(), 0
        while at + HEADER.size <= len(data):
            first, length, _, magic, _, flags, _, at_ms, _, producer, epoch, _, count = HEADER.unpack_from(
                data, at
            )
            if not length:
                break  # preallocated space
            if (magic, flags & COMPRESSION) != (2, 0):
                raise ValueError(f"{segment}: a batch of version {magic}, compression {flags & COMPRESSION}")
            records = list(_records(data, at + HEADER.size, count))
            at += 12 + length
            if bool(flags & TRANSACTIONAL) is transactional:
                marker = _marker(records) if flags & CONTROL else None
                yield Batch(
                    first=first, producer=producer, epoch=epoch, marker=marker, records=records, at_ms=at_ms,
                )  # fmt: skip


def _marker(records: list[Record]) -> str:
    _, kind = struct.unpack(">hh", records[0][0])
    return ("abort", "commit")[kind]


def _records(data: bytes, at: int, count: int) -> Iterator[Record]:
    for _ in range(count):
        length, at = _varint(data, at)
        end = at + length
        _, at = _varint(data, at + 1)  # after the attributes: timestamp, then offset
        _, at = _varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        yield key or b"", value, tuple(_headers(data, at))
        at = end


def _headers(data: bytes, at: int) -> Iterator[tuple[str, bytes]]:
    count, at = _varint(data, at)
    for _ in range(count):
        name, at = _bytes(data, at)
        value, at = _bytes(data, at)
        yield (name or b"").decode(), value or b""


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number, at = _uvarint(data, at)
    return (number >> 1) ^ -(number & 1), at


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
