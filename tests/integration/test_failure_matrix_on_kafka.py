"""The cells of the failure matrix that a real broker can be made to show: real errors, mapped to the layer's.

What the worker makes of them stands in `packages/faust-exactly-once/tests/unit/test_failure_matrix.py`.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import NewTopic

from broker import LocalBroker
from faust_exactly_once import producer
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.commit import Changes, CommitBatch, Committer
from faust_exactly_once.database import PartitionStore
from faust_exactly_once.errors import (
    KafkaUnavailable,
    MembershipLost,
    OutcomeUnknown,
    RecordRefused,
    TaskFenced,
    TopicUnknown,
)
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.task_stores import TaskStores
from faust_exactly_once.units import Outgoing

EVENTS, RESULTS, SMALL, CHANGELOG = "events", "results", "small", "changelog"
SMALL_BYTES = 20_000  # the largest batch that the topic SMALL takes
WAIT_S = 60.0
DAY_MS = 86_400_000
POINTS = ("before_send", "between_sends", "before_offsets", "before_commit")
next_offset = count(1)
T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Ask again while a broker that is new or was frozen does not know what it leads."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return call()
        except KafkaUnavailable:
            assert time.monotonic() < end
            time.sleep(0.05)


class Place:
    """A broker with topics, a group with one member, a `read_committed` reader."""

    def __init__(self, broker: LocalBroker) -> None:
        self.broker = broker
        self.cluster = Cluster(self.client(), WAIT_S)
        topics = [NewTopic(name, 1, 1) for name in (EVENTS, RESULTS, CHANGELOG)]
        small = {"max.message.bytes": str(SMALL_BYTES)}
        self.cluster.create([*topics, NewTopic(SMALL, 1, 1, config=small)])
        # it is a member for as long as the file takes, whoever is frozen meanwhile
        self.member = Consumer(self.client({
            "group.id": "group", "session.timeout.ms": 300_000, "max.poll.interval.ms": 3_600_000,
        }))  # fmt: skip
        self.member.subscribe([EVENTS])
        end = time.monotonic() + WAIT_S
        while not self.member.assignment():
            self.member.poll(0.1)
            assert time.monotonic() < end
        self._reader = Consumer(self.client({
            "group.id": "reader", "isolation.level": "read_committed", "enable.partition.eof": True,
            "enable.auto.commit": False, "fetch.wait.max.ms": 20,
        }))  # fmt: skip

    def client(self, more: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Settings of a client."""
        return {"bootstrap.servers": self.broker.bootstrap, "log_level": 0, **more}

    def membership(self) -> Membership:
        """The member's, as the coordinator knows it."""
        raw: Any = self.member.consumer_group_metadata()
        head = len(b"CGMDv2:")
        (generation,) = struct.unpack_from("=i", raw, head)
        group, member_id = raw[head + 4 :].split(b"\0")[:2]
        return Membership(group.decode(), generation, member_id.decode())

    def committed_offset(self) -> int | None:
        """The group's stable offset."""
        group, at = self.membership().group, (EVENTS, 0)
        return patiently(lambda: self.cluster.committed(group, [at])[at])

    def shown(self) -> set[tuple[str, bytes | None]]:
        """Topic, value of what a `read_committed` reader sees once no transaction is open."""
        self.wait_until_nothing_is_open()
        unread = {RESULTS, CHANGELOG}
        self._reader.assign([TopicPartition(name, 0, 0) for name in unread])
        found: set[tuple[str, bytes | None]] = set()
        while unread:
            message = self._reader.poll(WAIT_S)
            assert message is not None, f"{unread} have no end"
            error, name = message.error(), message.topic() or ""
            if error is None:
                found.add((name, message.value()))
            elif KafkaError._PARTITION_EOF == error.code():  # noqa: SLF001
                unread.discard(name)
        return found

    def wait_until_nothing_is_open(self) -> None:
        """The broker has ended every transaction; a commit returns before its markers are written."""
        logs, end = [(RESULTS, 0), (CHANGELOG, 0)], time.monotonic() + WAIT_S
        while any(log.stable != log.high for log in patiently(lambda: self.cluster.log_ends(logs)).values()):
            assert time.monotonic() < end
            time.sleep(0.02)

    def close(self) -> None:
        """Leave the group."""
        self._reader.close()
        self.member.close()


class Line:
    """A transactional id with its producers, its database; what happens at the points of the next commit."""

    def __init__(self, place: Place, folder: Path, name: str, **options: Any) -> None:
        self.place, self.value = place, name.encode()
        self.at: dict[str, Callable[[], object]] = {}
        self.offset, self.offset_before = next(next_offset), place.committed_offset()
        self._id, self._opened = name, list[ConfluentProducer]()
        self.options = Options(client_config=place.client(), probe=self._probe, **options)
        self.store = PartitionStore(folder / "t.db")
        self.store.open()
        self.producer = self.open()
        self.committer = Committer(
            self.producer, TaskStores({"t": self.store}), 0, place.membership(),
            {"t": CHANGELOG}, self.options,
        )  # fmt: skip

    def open(self) -> ConfluentProducer:
        """One more producer; it fences those before it."""
        self._opened.append(ConfluentProducer(self.options, self._id))
        patiently(self._opened[-1].init_transactions)
        return self._opened[-1]

    def commit(self, *others: Outgoing) -> None:
        """A result, perhaps something else, one changed key, an offset."""
        result = Outgoing(RESULTS, b"k", self.value)
        changes: Changes = {"t": {b"k": self.value}}
        self.committer.commit(CommitBatch([], [result, *others], changes, {(EVENTS, 0): self.offset}))

    def committed(self) -> tuple[bool, bool, bool, bool]:
        """Whether result, changelog record, offset, database show the commit."""
        shown, offset = self.place.shown(), self.place.committed_offset()
        assert offset in (self.offset, self.offset_before)
        result, change = ((name, self.value) in shown for name in (RESULTS, CHANGELOG))
        return result, change, offset == self.offset, self.store.get(b"k") == self.value

    def close(self) -> None:
        """End producers, database."""
        for opened in self._opened:
            opened.close()
        self.store.close()

    def _probe(self, point: str) -> None:
        self.at.pop(point, lambda: None)()


NOT_AT_ALL, ALL_OF_IT = (False,) * 4, (True,) * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """On a broker of this file's own, which it may freeze."""
    with LocalBroker(tmp_path_factory.mktemp("kafka"), port=0) as broker:
        place = Place(broker)
        yield place
        place.close()


@pytest.fixture
def line(place: Place, tmp_path: Path, unique_name: str) -> Iterator[Line]:
    """An open producer."""
    line = Line(place, tmp_path, unique_name)
    yield line
    line.close()


@pytest.mark.parametrize("point", POINTS)
def test_a_commit_during_which_another_producer_opens_is_fenced(point: str, line: Line) -> None:
    """Wherever it has come to, nothing of it is ever seen.

    OutcomeUnknown where confluent-kafka hides which fatal error came amid a delivery report (`fatal_error`).
    """
    line.at[point] = line.open
    with pytest.raises((TaskFenced, OutcomeUnknown)):
        line.commit()
    assert NOT_AT_ALL == line.committed()


def test_a_producer_fenced_after_its_commit_commits_nothing_more(line: Line) -> None:
    """What it committed stands; the next transaction is refused.

    Where confluent-kafka loses the fatal error in a delivery callback, that is an unknown outcome: the task
    opens again either way.
    """
    line.at["after_commit"] = line.open
    line.commit()
    assert ALL_OF_IT == line.committed()
    with pytest.raises((TaskFenced, OutcomeUnknown)):
        line.commit()


STRANGERS: dict[str, Callable[[Membership], Membership]] = {
    "the generation before": lambda member: replace(member, generation=member.generation - 1),
    "a generation to come": lambda member: replace(member, generation=member.generation + 1),
    "another member": lambda member: replace(member, member_id="somebody"),
    "a group without members": lambda member: replace(member, group=f"{member.group}-2"),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_offsets_of_a_stranger_end_the_transaction(who: str, line: Line) -> None:
    """The group's coordinator refuses them; the transaction is aborted, its producer goes on."""
    member = line.committer.membership
    line.committer = replace(line.committer, membership=STRANGERS[who](member))
    with pytest.raises(MembershipLost):
        line.commit()
    assert NOT_AT_ALL == line.committed()
    line.committer = replace(line.committer, membership=member)
    line.commit()
    assert ALL_OF_IT == line.committed()


REFUSED = {
    "larger than its topic takes": Outgoing(SMALL, b"k", bytes(SMALL_BYTES + 1)),
    "of tomorrow": Outgoing(SMALL, b"k", b"v", timestamp_ms=int(time.time() * 1000) + DAY_MS),
}
NOWHERE = Outgoing(SMALL, b"k", b"v", partition=9)


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_record_is_named_its_transaction_aborted(why: str, line: Line) -> None:
    """No commit goes past it; without it the same producer commits."""
    with pytest.raises(RecordRefused, match=SMALL):
        line.commit(REFUSED[why])
    assert NOT_AT_ALL == line.committed()
    line.commit()
    assert ALL_OF_IT == line.committed()


def test_a_record_for_a_place_that_kafka_does_not_know_is_sent_again_before_it_is_refused(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker that was asked may not have heard of it yet; for good only once it stays so."""
    with pytest.raises(TopicUnknown, match=SMALL):
        line.commit(NOWHERE)
    assert NOT_AT_ALL == line.committed()
    monkeypatch.setattr(producer, "UNKNOWN_TOPIC_S", 0.0)
    with pytest.raises(RecordRefused, match=SMALL):
        line.commit(NOWHERE)
    line.commit()
    assert ALL_OF_IT == line.committed()


def test_a_record_refused_while_others_are_still_being_sent_is_named(line: Line) -> None:
    """librdkafka takes no more records then: the one to blame is the refused one."""

    def send_on() -> None:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            line.producer.send([Outgoing(RESULTS, b"k", b"more")])
            time.sleep(0.01)

    line.at["between_sends"] = send_on
    with pytest.raises(RecordRefused, match=SMALL):
        line.commit(REFUSED["larger than its topic takes"])
    assert NOT_AT_ALL == line.committed()


@pytest.mark.parametrize("point", ["before_offsets", "before_commit"])
def test_a_transaction_that_the_broker_has_timed_out_is_fenced(
    point: str, place: Place, tmp_path: Path, unique_name: str
) -> None:
    """A worker that stalls amid its commit finds its transaction aborted."""
    line = Line(place, tmp_path, unique_name, transaction_timeout_ms=5000, request_timeout_s=5)
    line.at[point] = place.wait_until_nothing_is_open
    with pytest.raises(TaskFenced):
        line.commit()
    assert NOT_AT_ALL == line.committed()
    line.close()


@pytest.mark.parametrize("point", POINTS[1:])
def test_a_commit_that_gets_no_answer_is_decided_by_the_committed_offset(
    point: str, place: Place, tmp_path: Path, unique_name: str
) -> None:
    """The broker is frozen from here on; once a new producer has opened, all of it is there or nothing."""
    line = Line(place, tmp_path, unique_name)
    line.at[point] = partial(freeze, place.broker, line.producer)
    try:
        with pytest.raises(OutcomeUnknown):
            line.commit()
    finally:
        place.broker.resume()
    line.open()
    *in_kafka, stored = line.committed()
    assert in_kafka in ([False] * 3, [True] * 3)
    assert point == "before_commit" or not any(in_kafka)
    assert not stored, "that is left to the next opening"
    line.close()


def freeze(broker: LocalBroker, producer: ConfluentProducer) -> None:
    """The broker answers nothing more; the producer has little patience."""
    broker.pause()
    producer.timeout_s = 0.5
