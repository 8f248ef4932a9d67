"""Finds transactions whose end marker Kafka has forgotten; writes it as an operator would.

    python -m torture.markers LOG_FOLDER PORT [--write]

on the machine of a broker that is the only one. Kafka 4.4.0 takes a partition that has no leader at the
moment for a deleted one when it sends the markers (TransactionMarkerChannelManager: "these partitions are
likely deleted already and hence can be skipped", from KRaftMetadataCache.getPartitionLeaderEndpoint), then
calls the transaction complete. A broker that was frozen beyond its session, or killed amid its markers, has
such a moment: when the controller fences it, when it starts again. The transaction hangs for ever in the log,
with every offset and reader behind it; no client can mend that. What Kafka had decided, commit or abort,
stands in __transaction_state: that marker is written here, no other.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from torture.segments import HEADER, TRANSACTIONS, Place, _records, _transaction

WRITE_TXN_MARKERS: Final = 27
TRANSACTIONAL, CONTROL = 0x10, 0x20
UNDER_WAY: Final = frozenset({1, 2, 3})
"""States ongoing, prepare commit, prepare abort: the coordinator still works on it."""
PREPARE_COMMIT, PREPARE_ABORT = 2, 3
ANSWER_WITHIN_S: Final = 10.0
BETWEEN_LOOKS_S: Final = 2.0
CLIENT: Final = b"torture"


class Batch(NamedTuple):
    """What the header of a batch says; `data` are its records, unread."""

    first: int
    producer: int
    epoch: int
    flags: int
    records: int
    data: bytes


class Forgotten(NamedTuple):
    """A marker that is missing: where, since which offset, whose, commit or abort."""

    place: Place
    first: int
    producer: int
    epoch: int
    commits: bool
    coordinator_epoch: int


class Tail:
    """One partition's log, read on from where the last reading ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_to: dict[Path, int] = {}

    def more(self) -> Iterator[Batch]:
        """The batches that are whole now."""
        for segment in sorted(self._folder.glob("*.log")):
            at = self._read_to.get(segment, 0)
            with segment.open("rb") as file:
                file.seek(at)
                data = file.read()
            for batch, end in _batches(data):
                self._read_to[segment] = at + end
                yield batch


def _batches(data: bytes) -> Iterator[tuple[Batch, int]]:
    """Whole batches with the place where each ends."""
    at = 0
    while at + HEADER.size <= len(data):
        first, length, _, _, _, flags, _, _, _, producer, epoch, _, count = HEADER.unpack_from(data, at)
        end = at + 12 + length
        if not length or end > len(data):
            return
        yield Batch(first, producer, epoch, flags, count, data[at + HEADER.size : end]), end
        at = end


@dataclass(slots=True)
class Coordinator:
    """What the transaction coordinator has logged of one producer: the last state, the last decision."""

    state: int = 0
    decision: int = 0
    epoch: int = -1
    places: frozenset[Place] = frozenset()


@dataclass(slots=True)
class Ledger:
    """The open transactions of every partition beside what the coordinator says of their producers."""

    open: dict[tuple[Place, int], int] = field(default_factory=dict)
    coordinator_epochs: dict[tuple[Place, int], int] = field(default_factory=dict)
    producers: dict[int, Coordinator] = field(default_factory=dict)

    def decided(self, producer: int, epoch: int, state: int, places: Iterable[Place]) -> None:
        """A record of the coordinator."""
        known = self.producers.setdefault(producer, Coordinator())
        known.state = state
        if state in (PREPARE_COMMIT, PREPARE_ABORT):
            known.decision, known.epoch, known.places = state, epoch, frozenset(places)

    def written(self, place: Place, batch: Batch) -> None:
        """A batch of a partition."""
        where = place, batch.producer
        if batch.flags & CONTROL:
            self.open.pop(where, None)
            self.coordinator_epochs[where] = _coordinator_epoch(batch)
        elif batch.flags & TRANSACTIONAL:
            self.open.setdefault(where, batch.first)

    def forgotten(self) -> set[Forgotten]:
        """Open in the log although the coordinator is done with it; true if the next look says so too."""
        found = set()
        for (place, producer), first in self.open.items():
            known = self.producers.get(producer)
            if known is not None and known.state not in UNDER_WAY and place in known.places:
                coordinator_epoch = self.coordinator_epochs.get((place, producer), 0)
                commits = known.decision == PREPARE_COMMIT
                found.add(Forgotten(place, first, producer, known.epoch, commits, coordinator_epoch))
        return found


def _coordinator_epoch(marker: Batch) -> int:
    """From the value of the control record: version, epoch."""
    [(_, value, _)] = _records(marker.data, 0, 1)
    return int(struct.unpack_from(">hi", value or b"\0" * 6)[1])


class Repair:
    """Looks at the broker's log again and again; writes what two looks running miss."""

    def __init__(self, log: Path, port: int) -> None:
        self._log = log
        self._port = port
        self._tails: dict[Place, Tail] = {}
        self._ledger = Ledger()
        self._suspected: set[Forgotten] = set()

    def run_once(self) -> list[Forgotten]:
        """The markers that were written now; raises OSError while the broker is away.

        The coordinator's log is read first: a transaction that is complete there has its markers already.
        """
        sure = self.look()
        for one in sure:
            write_marker(self._port, one)
        return sure

    def look(self) -> list[Forgotten]:
        """What this look and the one before miss; nothing is written."""
        self._read(TRANSACTIONS)
        self._read("")
        missing = self._ledger.forgotten()
        sure, self._suspected = missing & self._suspected, missing
        return sorted(sure)

    def _read(self, prefix: str) -> None:
        for folder in sorted(self._log.glob(f"{prefix}*-[0-9]*")):
            topic, _, partition = folder.name.rpartition("-")
            if topic.startswith("__cluster") or (topic == TRANSACTIONS) != (prefix == TRANSACTIONS):
                continue
            place = topic, int(partition)
            for batch in self._tails.setdefault(place, Tail(folder)).more():
                if topic == TRANSACTIONS:
                    self._decisions(batch)
                else:
                    self._ledger.written(place, batch)

    def _decisions(self, batch: Batch) -> None:
        for _, value, _ in _records(batch.data, 0, batch.records):
            if value is not None:
                producer, state, ended = _transaction(value)
                [epoch] = struct.unpack_from(">h", value, 10)
                self._ledger.decided(producer, epoch, state, ended.places)


def write_marker(port: int, marker: Forgotten) -> None:
    """Ask the broker for this marker, as its own coordinator does; raises OSError, for a refusal too."""
    request = request_of(marker)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN_S) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(struct.pack(">i", len(request)) + request)
        size = answer.read(4)
        if len(size) < 4:
            raise OSError("the broker closed the connection")
        error = error_of(answer.read(struct.unpack(">i", size)[0]), marker)
    if error:
        raise OSError(f"the broker answers {error} to {marker}")


def request_of(marker: Forgotten) -> bytes:
    """A WriteTxnMarkers request of version 1 (kafka.apache.org/protocol)."""
    header = struct.pack(">hhih", WRITE_TXN_MARKERS, 1, 1, len(CLIENT)) + CLIENT + b"\0"
    topic = marker.place[0].encode()
    return (
        header + b"\2" + struct.pack(">qh?", marker.producer, marker.epoch, marker.commits)
        + b"\2" + bytes([len(topic) + 1]) + topic + b"\2" + struct.pack(">i", marker.place[1]) + b"\0"
        + struct.pack(">i", marker.coordinator_epoch) + b"\0\0"
    )  # fmt: skip


def error_of(answer: bytes, marker: Forgotten) -> int:
    """The error code of the one partition that was asked about."""
    before = 4 + 1 + 1 + 8 + 1 + 1 + len(marker.place[0].encode()) + 1
    partition, error = struct.unpack_from(">ih", answer, before)
    return int(error) if partition == marker.place[1] else -1


def main(arguments: list[str] | None = None) -> int:
    """Name what is missing; with --write, write it. Exit code 0: nothing is missing now; 1: something is."""
    parser = argparse.ArgumentParser(prog="python -m torture.markers", description=__doc__)
    parser.add_argument("log", type=Path, help="the broker's log.dirs")
    parser.add_argument("port", type=int, help="of the broker, on 127.0.0.1")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(arguments)
    if not (chosen.log / f"{TRANSACTIONS}-0").is_dir():
        parser.error(f"{chosen.log} is no log folder of a broker with transactions")
    repair = Repair(chosen.log, chosen.port)
    repair.look()
    time.sleep(BETWEEN_LOOKS_S)
    missing = repair.look()
    for one in missing:
        end = "COMMIT" if one.commits else "ABORT"
        print(f"{one.place[0]}-{one.place[1]}@{one.first}: producer {one.producer} lacks its {end} marker")
        if chosen.write:
            write_marker(chosen.port, one)
    return 0 if chosen.write or not missing else 1


if __name__ == "__main__":
    sys.exit(main())
