"""The parts of a torture run on three real brokers: who reaches whom, who leads, whose log is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.records import committed, committed_now
from support.until import until

from broker.leaders import leader
from faust_exactly_once.cluster import Cluster
from torture.markers import Forgotten, Repair, Tail, write_marker
from torture.replicas import leading_folders
from torture.segments import log_end, transactional_records
from torture.three import ThreeBrokers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBrokers]:
    """Three brokers of these tests' own, with the links of two clients."""
    with ThreeBrokers(tmp_path_factory.mktemp("torture") / "kafka", ["w1", "w2"]) as kafka:
        yield kafka


@pytest.fixture
def kafka(running: ThreeBrokers) -> Iterator[ThreeBrokers]:
    """All of them up, reachable and in sync, before and after."""
    running.settle()
    yield running
    running.settle()


@pytest.fixture
def topic(kafka: ThreeBrokers, unique_name: str) -> str:
    """A new topic with one partition on each broker."""
    Cluster({"bootstrap.servers": kafka.bootstrap}, LIMIT_S).create([NewTopic(unique_name, 1, 3)])
    until(kafka.is_whole, "all replicas are in sync", LIMIT_S)
    return unique_name


def open_transaction(kafka: ThreeBrokers, topic: str, value: bytes) -> Producer:
    """One record in a transaction whose commit is still to come, sent through w1's links."""
    made = Producer({
        "bootstrap.servers": kafka.url("w1").replace("kafka://", "").replace(";", ","),
        "transactional.id": f"{topic}-{value.decode()}", "transaction.timeout.ms": 60_000, "log_level": 0,
    })  # fmt: skip
    made.init_transactions(LIMIT_S)
    made.begin_transaction()
    made.produce(topic, value, partition=0)
    assert 0 == made.flush(LIMIT_S)
    return made


def test_a_client_reaches_each_broker_through_a_link_of_its_own(kafka: ThreeBrokers, topic: str) -> None:
    """Metadata name the links' ports; the other client's links see nothing of it."""
    address = kafka.url("w1").replace("kafka://", "").replace(";", ",")
    told = AdminClient({"bootstrap.servers": address}).list_topics(timeout=LIMIT_S).brokers
    assert {n: kafka.links["w1", n].port for n in (1, 2, 3)} == {n: one.port for n, one in told.items()}
    before = kafka.links_of_clients["w2"].open_connections()
    open_transaction(kafka, topic, b"1").commit_transaction(LIMIT_S)
    assert kafka.links_of_clients["w1"].seen["end_txn"] > 0
    assert before == kafka.links_of_clients["w2"].open_connections()


@pytest.mark.parametrize("silent", [True, False])
def test_a_broker_without_clients_goes_on_to_lead(kafka: ThreeBrokers, topic: str, silent: bool) -> None:
    """Its peers follow it, nobody comes in by a client's link; healing a worker's link does not heal this."""
    number = leader(kafka.bootstrap, topic, 0)
    assert number is not None
    kafka.cut_from_clients(number, silent=silent)
    kafka.links["w1", number].trouble()
    port = kafka.links["w1", number].port
    with pytest.raises(Exception, match="(?i)transport|timed out"):
        AdminClient({"bootstrap.servers": f"127.0.0.1:{port}"}).list_topics(timeout=2)
    assert kafka.is_whole()
    assert number == leader(kafka.bootstrap, topic, 0)
    kafka.heal()
    open_transaction(kafka, topic, b"2").commit_transaction(LIMIT_S)


def test_a_broker_without_peers_and_controller_leads_no_longer(kafka: ThreeBrokers, topic: str) -> None:
    """Its partition moves, a transaction commits without it; back, it has what the others have."""
    number = leader(kafka.bootstrap, topic, 0)
    assert number is not None
    kafka.cut_from_peers(number, silent=True)
    other = kafka.homes[number % 3 + 1]
    there = f"127.0.0.1:{other.port}"
    until(lambda: leader(there, topic, 0) not in (number, None), "another one leads", LIMIT_S)
    assert not kafka.is_whole()
    open_transaction(kafka, topic, b"3").commit_transaction(LIMIT_S)
    kafka.heal()
    assert kafka.wait_whole() is not None
    assert 1 == len({log_end(home.log / f"{topic}-0") for home in kafka.homes.values()})


def test_records_are_read_at_their_leader_after_it_moved(kafka: ThreeBrokers, topic: str) -> None:
    """What a transaction wrote before and after the death of a leader, with its outcome."""
    open_transaction(kafka, topic, b"before").commit_transaction(LIMIT_S)
    number = leader(kafka.bootstrap, topic, 0)
    assert number is not None
    kafka.node(number).kill()
    open_transaction(kafka, topic, b"without").commit_transaction(LIMIT_S)
    open_transaction(kafka, topic, b"aborted").abort_transaction(LIMIT_S)
    kafka.settle()
    found = transactional_records(leading_folders(kafka.replicas), topic)
    assert [(b"before", "commit"), (b"without", "commit"), (b"aborted", "abort")] == [
        (one.value, one.outcome) for one in found
    ]


def test_a_marker_by_hand_goes_to_the_leader(kafka: ThreeBrokers, topic: str) -> None:
    """A follower refuses it; an open transaction is never taken for a forgotten one."""
    hangs = open_transaction(kafka, topic, b"hangs")
    repair = Repair.of(kafka.replicas)
    assert [[], [], []] == [repair.run_once() for _ in range(3)]
    number = leader(kafka.bootstrap, topic, 0)
    assert number is not None
    [batch] = Tail(leading_folders(kafka.replicas)[topic, 0]).more()
    missing = Forgotten((topic, 0), batch.first, batch.producer, batch.epoch, True, 0)
    with pytest.raises(OSError, match="the broker answers 6"):  # not the leader
        write_marker(kafka.homes[number % 3 + 1].port, missing)
    assert [] == committed_now(kafka.bootstrap, topic, LIMIT_S)
    repair.write([missing])
    assert [b"hangs"] == committed(kafka.bootstrap, topic, LIMIT_S)
    del hangs
