"""The parts of a torture run on a real broker: what the proxy does to real clients."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from support.records import committed, committed_now
from support.until import until

from faust_exactly_once.cluster import Cluster
from torture.cluster import ProxiedBroker
from torture.markers import Forgotten, Repair, Tail, write_marker
from torture.proxy import Link

LIMIT_S = 60.0
HOLD_S = 1.5
GIVEN_UP_S = 1.0
LATE_S = 12.0
"""Long enough for a new producer to be there first."""
SENDS = 3


def producer(kafka: ProxiedBroker, name: str, within_s: float = LIMIT_S) -> Producer:
    """A transactional producer on the first link, begun."""
    made = Producer({
        "bootstrap.servers": kafka.url("w1").removeprefix("kafka://"), "transactional.id": name,
        "transaction.timeout.ms": 120_000, "retry.backoff.ms": 20, "reconnect.backoff.max.ms": 100,
        "log_level": 0,
    })  # fmt: skip
    made.init_transactions(within_s)
    return made


def write(by: Producer, topic: str, value: bytes) -> None:
    """One confirmed record in a transaction of its own, whose commit is still to come."""
    by.begin_transaction()
    by.produce(topic, value, partition=0)
    assert 0 == by.flush(LIMIT_S)


def test_a_client_stays_on_the_link_it_came_in_by(kafka: ProxiedBroker, link: Link, topic: str) -> None:
    """Metadata name the link's port, so leaders and coordinators too are reached through it."""
    address = kafka.url("w1").removeprefix("kafka://")
    brokers = AdminClient({"bootstrap.servers": address}).list_topics(timeout=LIMIT_S).brokers
    assert [f"127.0.0.1:{link.port}/1"] == [str(one) for one in brokers.values()]
    before = kafka.links["w2"].seen["connections"]
    by = producer(kafka, topic)
    write(by, topic, b"1")
    by.commit_transaction(LIMIT_S)
    assert (True, before) == (link.seen["end_txn"] > 0, kafka.links["w2"].seen["connections"])


def test_end_txn_is_held_nothing_else_is(kafka: ProxiedBroker, link: Link, topic: str) -> None:
    """Records are confirmed at once, the commit comes late; then all is as before."""
    by = producer(kafka, topic)
    write(by, topic, b"warm")
    by.commit_transaction(LIMIT_S)
    held = link.seen["held"]
    link.trouble(hold_request_s=HOLD_S)
    write(by, topic, b"late")
    assert held == link.seen["held"]
    began = time.monotonic()
    by.commit_transaction(LIMIT_S)
    assert HOLD_S <= time.monotonic() - began
    assert held + 1 == link.seen["held"]
    assert [b"warm", b"late"] == committed(kafka.bootstrap, topic, LIMIT_S)


def test_a_late_end_txn_does_not_end_a_later_transaction(
    kafka: ProxiedBroker, link: Link, topic: str
) -> None:
    """Its sender gave up, a new producer fenced it; what arrives late neither commits nor aborts anything."""
    old = producer(kafka, topic)
    write(old, topic, b"given up")
    link.trouble(hold_request_s=LATE_S)
    began = time.monotonic()
    with pytest.raises(KafkaException):
        old.commit_transaction(GIVEN_UP_S)
    link.trouble()
    new = producer(kafka, topic)
    write(new, topic, b"open")
    while link.waiting() or time.monotonic() < began + LATE_S + 0.5:  # the held request is on its way
        assert [] == [value for value in committed_now(kafka.bootstrap, topic, LIMIT_S) if value == b"open"]
    new.commit_transaction(LIMIT_S)
    assert [b"open"] == committed(kafka.bootstrap, topic, LIMIT_S)


def test_clients_survive_a_cut(kafka: ProxiedBroker, link: Link, topic: str) -> None:
    """Every connection is reset between two transactions; the next one commits all the same."""
    by = producer(kafka, topic)
    for number in range(SENDS):
        write(by, topic, b"%d" % number)
        by.commit_transaction(LIMIT_S)
        assert link.cut() > 0
    assert [b"%d" % number for number in range(SENDS)] == committed(kafka.bootstrap, topic, LIMIT_S)


def test_a_half_open_link_confirms_nothing_until_it_heals(
    kafka: ProxiedBroker, link: Link, topic: str
) -> None:
    """Connections stay, records wait, then arrive once."""
    by = producer(kafka, topic)
    write(by, topic, b"1")
    link.trouble(silent=True)
    by.produce(topic, b"2", partition=0)
    assert 1 == by.flush(GIVEN_UP_S)
    assert link.open_connections() > 0
    link.trouble()
    assert 0 == by.flush(LIMIT_S)
    by.commit_transaction(LIMIT_S)
    assert [b"1", b"2"] == committed(kafka.bootstrap, topic, LIMIT_S)


def test_the_broker_comes_back_on_the_same_ports(kafka: ProxiedBroker, link: Link, topic: str) -> None:
    """After SIGKILL and a start, the same client goes on through the same link."""
    by = producer(kafka, topic)
    write(by, topic, b"before")
    by.commit_transaction(LIMIT_S)
    kafka.broker.kill()
    until(lambda: link.open_connections() == 0, "every connection is closed", LIMIT_S)
    kafka.broker.start()
    write(by, topic, b"after")
    by.commit_transaction(LIMIT_S)
    assert [b"before", b"after"] == committed(kafka.bootstrap, topic, LIMIT_S)


def test_an_open_transaction_is_not_taken_for_a_forgotten_one(kafka: ProxiedBroker, topic: str) -> None:
    """As long as the coordinator works on it nothing is written by hand, nor once it has ended."""
    repair = Repair(kafka.broker.data_dir / "log", kafka.broker.port)
    by = producer(kafka, topic)
    write(by, topic, b"1")
    assert [[], [], []] == [repair.run_once() for _ in range(3)]
    by.commit_transaction(LIMIT_S)
    assert [[], [], []] == [repair.run_once() for _ in range(3)]
    assert [b"1"] == committed(kafka.bootstrap, topic, LIMIT_S)


@pytest.mark.parametrize("commits", [True, False])
def test_a_marker_by_hand_ends_a_transaction(kafka: ProxiedBroker, topic: str, commits: bool) -> None:
    """Readers go on behind it, with its record or without; a stale epoch is refused."""
    producer(kafka, topic)  # so that there is an older epoch
    by = producer(kafka, topic)
    write(by, topic, b"hangs")
    tail = Tail(kafka.broker.data_dir / "log" / f"{topic}-0")
    [batch] = tail.more()
    missing = Forgotten((topic, 0), batch.first, batch.producer, batch.epoch, commits, 0)
    assert [] == committed_now(kafka.bootstrap, topic, LIMIT_S)
    with pytest.raises(OSError, match="the broker answers 47"):
        write_marker(kafka.broker.port, missing._replace(epoch=batch.epoch - 1))
    write_marker(kafka.broker.port, missing)
    assert ([b"hangs"] if commits else []) == committed(kafka.bootstrap, topic, LIMIT_S)
    ends = Cluster({"bootstrap.servers": kafka.bootstrap}, LIMIT_S).log_ends([(topic, 0)])[topic, 0]
    assert 2 == ends.stable == ends.high
