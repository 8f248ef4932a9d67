"""Finds transactions whose end marker Kafka has forgotten; writes it as an operator would.

    python -m torture.markers LOG_FOLDER PORT [--broker LOG_FOLDER PORT]... [--write]

on the machine of a broker that is the only one, or of all brokers of a cluster, each named. Kafka 4.4.0 takes
a partition that has no leader at the moment for a deleted one when it sends the markers
(TransactionMarkerChannelManager: "these partitions are likely deleted already and hence can be skipped", from
KRaftMetadataCache.getPartitionLeaderEndpoint), then calls the transaction complete. A broker that was frozen
beyond its session, or killed amid its markers, has such a moment: when the controller fences it, when it
starts again; a cluster, while too few brokers are left. The transaction hangs for ever in the log, with every
offset and reader behind it; no client can mend that. What Kafka had decided, commit or abort, stands in
__transaction_state, at the leader of the producer's partition there: that marker is written here, at the
leader of the partition that lacks it, no other.
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

from torture.replicas import ClusterReplicas, Home, OnlyBroker, Replicas, node_id
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

    def __str__(self) -> str:
        end = "COMMIT" if self.commits else "ABORT"
        where = f"{self.place[0]}-{self.place[1]}@{self.first}"
        return f"{where}: producer {self.producer} lacks its {end} marker"


class Truncated(Exception):
    """Raised when what was read before is no longer what stands in the log: a follower has cut it back."""


class Tail:
    """One partition's log on one broker, read on from where the last reading ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_to: dict[Path, tuple[int, int, bytes]] = {}
        """Per segment: where the last batch begins, where it ends, its header."""

    def more(self) -> Iterator[Batch]:
        """The batches that are whole now; raises Truncated."""
        segments = sorted(self._folder.glob("*.log"))
        if self._read_to and segments and max(self._read_to) > segments[-1]:
            raise Truncated(str(self._folder))
        for segment in segments:
            begin, end, header = self._read_to.get(segment, (0, 0, b""))
            with segment.open("rb") as file:
                file.seek(begin)
                data = file.read()
            if data[: len(header)] != header:
                raise Truncated(str(segment))
            start = skip = end - begin
            for batch, until in _batches(data[skip:]):
                header = data[start : start + HEADER.size]
                self._read_to[segment] = begin + start, begin + skip + until, header
                start = skip + until
                yield batch


def _batches(data: bytes) -> Iterator[tuple[Batch, int]]:
    """Whole batches with the place where each ends."""
    at = 0
    while at + HEADER.size <= len(data):
        first, length, _, _, _, flags, _, _, _, producer, epoch, _, count = HEADER.unpack_from(data, at)
        end = at + 12 + length
        if not length or end > len(data):
            return
        yield Batch(
            first=first, producer=producer, epoch=epoch, flags=flags, records=count,
            data=data[at + HEADER.size : end],
        ), end  # fmt: skip
        at = end


@dataclass(slots=True)
class Coordinator:
    """What the transaction coordinator has logged of one producer: the last state, the last decisions.

    `decided` has by partition the decision of the last transaction that wrote there, with its epoch: a later
    one, elsewhere, does not end what is open here.
    """

    state: int = 0
    decided: dict[Place, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Ledger:
    """The open transactions of every partition beside what the coordinator says of their producers."""

    open: dict[tuple[Place, int], int] = field(default_factory=dict)
    coordinator_epochs: dict[tuple[Place, int], int] = field(default_factory=dict)
    producers: dict[int, Coordinator] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[Ledger]) -> Ledger:
        """What several ledgers, of different partitions, say together."""
        whole = cls()
        for part in parts:
            whole.open |= part.open
            whole.coordinator_epochs |= part.coordinator_epochs
            whole.producers |= part.producers
        return whole

    def decided(self, producer: int, epoch: int, state: int, places: Iterable[Place]) -> None:
        """A record of the coordinator."""
        known = self.producers.setdefault(producer, Coordinator())
        known.state = state
        if state in (PREPARE_COMMIT, PREPARE_ABORT):
            known.decided.update(dict.fromkeys(places, (state, epoch)))

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
            if known is not None and known.state not in UNDER_WAY and place in known.decided:
                coordinator_epoch = self.coordinator_epochs.get((place, producer), 0)
                decision, epoch = known.decided[place]
                found.add(Forgotten(
                    place=place, first=first, producer=producer, epoch=epoch,
                    commits=decision == PREPARE_COMMIT, coordinator_epoch=coordinator_epoch,
                ))  # fmt: skip
        return found


def _coordinator_epoch(marker: Batch) -> int:
    """From the value of the control record: version, epoch."""
    [(_, value, _)] = _records(marker.data, 0, 1)
    return int(struct.unpack_from(">hi", value or b"\0" * 6)[1])


class Repair:
    """Looks at the brokers' logs again and again; writes what two looks running miss.

    Every partition is read where its leader keeps it, also the coordinator's.
    """

    def __init__(self, log: Path, port: int) -> None:
        self._replicas: Replicas = OnlyBroker(log, port)
        self._read_so_far: dict[tuple[int, Place], tuple[Tail, Ledger]] = {}
        self._suspected: set[Forgotten] = set()

    @classmethod
    def of(cls, replicas: Replicas) -> Repair:
        """For the brokers of a cluster."""
        made = cls(Path(), 0)
        made._replicas = replicas
        return made

    def run_once(self) -> list[Forgotten]:
        """The markers that were written now; raises OSError while the broker, or a leader, is away."""
        sure = self.look()
        self.write(sure)
        return sure

    def write(self, markers: Iterable[Forgotten]) -> None:
        """Write these at the leaders of their partitions; raises OSError."""
        for one in markers:
            node = self._replicas.leaders().get(one.place)
            if node is None:
                raise OSError(f"{one.place[0]}-{one.place[1]} has no leader")
            write_marker(self._replicas.homes[node].port, one)

    def look(self) -> list[Forgotten]:
        """What this look and the one before miss; nothing is written.

        The coordinator's log is read first: a transaction that is complete there has its markers already.
        """
        leaders = self._replicas.leaders()
        places = sorted(leaders, key=lambda place: (place[0] != TRANSACTIONS, place))
        parts = [self._read(one, leaders[one]) for one in places if not one[0].startswith("__cluster")]
        missing = Ledger.of(parts).forgotten()
        sure, self._suspected = missing & self._suspected, missing
        return sorted(sure)

    def _read(self, place: Place, node: int) -> Ledger:
        """Everything of this partition up to now, on the disk of this broker."""
        folder = self._replicas.homes[node].log / f"{place[0]}-{place[1]}"
        tail, ledger = self._read_so_far.setdefault((node, place), (Tail(folder), Ledger()))
        try:
            for batch in tail.more():
                if place[0] == TRANSACTIONS:
                    _add_decisions(ledger, batch)
                else:
                    ledger.written(place, batch)
        except Truncated:
            del self._read_so_far[node, place]
            return self._read(place, node)
        return ledger


def _add_decisions(ledger: Ledger, batch: Batch) -> None:
    for _, value, _ in _records(batch.data, 0, batch.records):
        if value is not None:
            producer, state, ended = _transaction(value)
            [epoch] = struct.unpack_from(">h", value, 10)
            ledger.decided(producer, epoch, state, ended.places)


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
    parser.add_argument(
        "--broker", nargs=2, action="append", default=[], metavar=("LOG", "PORT"),
        help="each other broker of the cluster: all must be named",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args(arguments)
    homes = [Home(chosen.log, chosen.port), *(Home(Path(log), int(port)) for log, port in chosen.broker)]
    for home in homes:
        if not (home.log / f"{TRANSACTIONS}-0").is_dir():
            parser.error(f"{home.log} is no log folder of a broker with transactions")
    replicas: Replicas = OnlyBroker(*homes[0])
    if len(homes) > 1:
        replicas = ClusterReplicas({node_id(home.log): home for home in homes})
    try:
        return _report(Repair.of(replicas), write=chosen.write)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def _report(repair: Repair, *, write: bool) -> int:
    repair.look()
    time.sleep(BETWEEN_LOOKS_S)
    missing = repair.look()
    for one in missing:
        print(one)
    if write:
        repair.write(missing)
    return 0 if write or not missing else 1


if __name__ == "__main__":
    sys.exit(main())
