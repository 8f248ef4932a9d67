"""The promises of three local brokers, shown on real ones: what goes on without some, what does not."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from support.records import committed, refusal
from support.until import until

from broker import BrokerError, LocalBroker
from broker.cluster import LocalCluster, Node
from faust_exactly_once.cluster import Cluster
from processes.kernel import lives

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


@pytest.fixture
def whole(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The session's three brokers, all of them up again after the test."""
    yield cluster
    for node in cluster.nodes:
        node.resume()
    cluster.start()


@pytest.fixture
def admin(whole: LocalCluster) -> AdminClient:
    """A client of all brokers."""
    return AdminClient({"bootstrap.servers": whole.bootstrap, "log_level": 0}, logger=None)


@pytest.fixture
def topic(whole: LocalCluster, admin: AdminClient, unique_name: str) -> str:
    """A topic with one partition, its replication left to the brokers, all replicas in sync."""
    admin.create_topics([NewTopic(unique_name, 1)])[unique_name].result(60)
    until(lambda: {1, 2, 3} == in_sync(whole.bootstrap, unique_name), "all replicas in sync")
    return unique_name


def replicas(bootstrap: str, topic: str) -> list[tuple[int, set[int], set[int]]]:
    """For each partition: leader, replicas, those in sync; empty while nobody says."""
    # a new client each time asks the brokers that it is given, not those that it knew before they died
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}, logger=None)
    try:
        found = client.list_topics(topic, timeout=5).topics[topic].partitions.values()
    except KafkaException:
        return []
    return [(each.leader, set(each.replicas), set(each.isrs)) for each in found]


def in_sync(bootstrap: str, topic: str) -> set[int]:
    """Brokers that hold all of partition 0."""
    return next((isr for _, _, isr in replicas(bootstrap, topic)), set())


def all_in_sync(bootstrap: str, topic: str) -> bool:
    """True if every partition has three replicas, all of them in sync."""
    found = replicas(bootstrap, topic)
    return bool(found) and all({1, 2, 3} == everywhere == isr for _, everywhere, isr in found)


def leader(whole: LocalCluster, topic: str) -> Node:
    """The broker that leads partition 0, as soon as one does, and somebody says so."""

    def asked() -> int:
        return next((number for number, _, _ in replicas(whole.bootstrap, topic)), -1)

    until(lambda: asked() > 0, f"a leader of {topic}")
    return whole.brokers[asked() - 1]


def write_in_transaction(whole: LocalCluster, topic: str, value: bytes) -> None:
    """One committed record, acknowledged by all replicas in sync."""
    producer = Producer(
        {"bootstrap.servers": whole.bootstrap, "acks": "all", "transactional.id": f"{topic}-{value.decode()}",
         "log_level": 0},
        logger=None,
    )  # fmt: skip
    producer.init_transactions(90)
    producer.begin_transaction()
    producer.produce(topic, value, partition=0)
    producer.commit_transaction(90)


def committed_values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The first `count` values of partition 0 for a reader of committed records, or fewer after a minute."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "isolation.level": "read_committed",
         # so that neither reading nor closing needs a coordinator
         "enable.auto.commit": False, "log_level": 0},
        logger=None,
    )  # fmt: skip
    found: list[bytes] = []
    limit = time.monotonic() + 60.0
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while len(found) < count and time.monotonic() < limit:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                found.append(bytes(message.value() or b""))
        return found
    finally:
        consumer.close()


def config(admin: AdminClient, topic: str, name: str) -> str:
    """A topic's setting as the brokers apply it."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = admin.describe_configs([resource], request_timeout=60)[resource].result(60)
    return str(found[name].value)


def test_three_brokers_are_processes_of_their_own_within_2_gib(whole: LocalCluster) -> None:
    """Controller and brokers have a pid each; clients get three addresses; all fit into 2 GiB."""
    assert 4 == len({node.pid for node in whole.nodes})
    assert 3 == len(set(whole.bootstrap.split(",")))
    assert whole.url.split(";") == [f"kafka://{address}" for address in whole.bootstrap.split(",")]
    assert 0 < whole.memory_bytes() < 2 * GIB


def test_every_topic_has_three_replicas_in_sync(whole: LocalCluster, admin: AdminClient, topic: str) -> None:
    """User topics by default, the internal ones too: replication 3, min.insync.replicas 2."""
    write_in_transaction(whole, topic, b"value")
    assert [b"value"] == committed_values(whole.bootstrap, topic, 1)
    # the coordinator's topic is made for the first group, and its leader has to load it
    Cluster({"bootstrap.servers": whole.bootstrap}, 60).committed(topic, [(topic, 0)])
    for name in (topic, "__transaction_state", "__consumer_offsets"):
        # a broker that stalls for a while leaves those in sync, and comes back
        until(lambda name=name: all_in_sync(whole.bootstrap, name), f"three of {name} in sync")  # type: ignore[misc]
        assert "2" == config(admin, name, "min.insync.replicas"), name


def test_one_broker_killed_stops_neither_writers_nor_readers(whole: LocalCluster, topic: str) -> None:
    """The leader dies: transactions are committed and read by the others; it returns on the same port."""
    write_in_transaction(whole, topic, b"before")
    victim = leader(whole, topic)
    pid, address = victim.pid, victim.bootstrap
    victim.kill()
    assert not lives(pid)
    write_in_transaction(whole, topic, b"while one is gone")
    assert [b"before", b"while one is gone"] == committed_values(whole.bootstrap, topic, 2)
    victim.start()
    assert (address, True) == (victim.bootstrap, victim.pid != pid)
    until(lambda: {1, 2, 3} == in_sync(whole.bootstrap, topic), "all replicas in sync")


def test_two_brokers_killed_stop_writers_alone(whole: LocalCluster, topic: str) -> None:
    """The last replica takes no record that it alone would hold; what was committed can still be read."""
    write_in_transaction(whole, topic, b"committed")
    # Kafka answers a commit before its end marker is there
    until(lambda: [b"committed"] == committed_values(whole.bootstrap, topic, 1), "its end is in the log")
    survivor = leader(whole, topic)
    for node in whole.brokers:
        if node is not survivor:
            node.kill()
    until(
        lambda: {survivor.number} == in_sync(survivor.bootstrap, topic), "the dead leave the replicas in sync"
    )
    # on a busy machine a record's time may be over before the broker's answer is there
    tries = (b"try %d" % number for number in count())
    refused: list[bytes] = []

    def refuses() -> bool:
        value = next(tries)
        if refusal(whole.bootstrap, topic, value) != KafkaError.NOT_ENOUGH_REPLICAS:
            return False
        refused.append(value)
        return True

    until(refuses, "it refuses to write")
    assert [b"committed"] == committed_values(survivor.bootstrap, topic, 1)
    whole.start()
    until(lambda: {1, 2, 3} == in_sync(whole.bootstrap, topic), "all replicas in sync")
    write_in_transaction(whole, topic, b"again")
    values = committed(whole.bootstrap, topic, 15)
    assert [b"committed", b"again"] == [value for value in values if not value.startswith(b"try")]
    assert refused[0] not in values


def test_a_frozen_broker_falls_out_of_sync_and_comes_back(whole: LocalCluster, topic: str) -> None:
    """pause() (SIGSTOP) longer than the broker's session moves its partitions, resume() brings it back."""
    victim = leader(whole, topic)
    pid = victim.pid
    victim.pause()
    others = [node for node in whole.brokers if node is not victim]
    elsewhere = others[0].bootstrap
    until(lambda: {node.number for node in others} == in_sync(elsewhere, topic), "the frozen one is out")
    victim.resume()
    until(lambda: {1, 2, 3} == in_sync(elsewhere, topic), "all replicas in sync")
    assert pid == victim.pid


def test_all_stop_and_start_again_on_their_ports(whole: LocalCluster, topic: str) -> None:
    """stop() leaves no process; start() serves the same records at the same addresses."""
    write_in_transaction(whole, topic, b"kept")
    pids, addresses = [node.pid for node in whole.nodes], whole.bootstrap
    whole.stop()
    assert [] == [pid for pid in pids if lives(pid)]
    whole.start()
    assert addresses == whole.bootstrap
    assert [b"kept"] == committed_values(whole.bootstrap, topic, 1)


def test_no_broker_of_three_outlives_its_starter(tmp_path: Path) -> None:
    """SIGKILL for `make kafka BROKERS=3`: its four Java processes end, too."""
    command = [sys.executable, "-m", "broker", "run", "--data", str(tmp_path), "--port", "0"]
    environment = os.environ | {"BROKERS": "3"}
    environment.pop("KAFKA", None)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as starter:
        assert starter.stdout is not None
        address = starter.stdout.readline().strip()
        (broker,) = shlex.split(address.removeprefix("BILLING_BROKER="))
        assert 3 == len([one for one in broker.split(";") if one.startswith("kafka://127.0.0.1:")])
        pids = [int(file.read_text()) for file in tmp_path.glob("*/pid")]
        assert 4 == len([pid for pid in pids if lives(pid)])
        starter.send_signal(signal.SIGKILL)
        assert -signal.SIGKILL == starter.wait(30)
    until(lambda: not any(lives(pid) for pid in pids), "its Java processes end")


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"BROKERS": "2"}, "BROKERS=2 is not offered: choose 1 or 3"),
        ({"BROKERS": "0"}, "BROKERS=0 is not offered: choose 1 or 3"),
        ({"BROKERS": "x"}, "BROKERS=x is not offered: choose 1 or 3"),
        (
            {"BROKERS": "3", "KAFKA": "a:9092"},
            "BROKERS=3 starts brokers, KAFKA=a:9092 names yours: choose one",
        ),
    ],
)
def test_other_counts_are_refused_in_one_line(tmp_path: Path, environment: dict[str, str], text: str) -> None:
    """Anything but 1 or 3 brokers, and brokers beside a named one, ends with 2 before Java starts."""
    command = [sys.executable, "-m", "broker", "run", "--data", str(tmp_path)]
    bare = {name: value for name, value in os.environ.items() if name not in ("KAFKA", "BROKERS")}
    done = subprocess.run(
        command, cwd=ROOT, env=bare | environment, capture_output=True, text=True, check=False
    )
    assert (2, text + "\n") == (done.returncode, done.stderr)
    assert [] == list(tmp_path.iterdir())


def test_a_folder_keeps_its_number_of_brokers(tmp_path: Path) -> None:
    """One broker does not start on the data of three; nor are two ever started."""
    (tmp_path / "controller").mkdir()
    (tmp_path / "controller" / "brokers").write_text("3\n")
    with pytest.raises(BrokerError, match="^.+ holds the data of 3 brokers, not of 1: choose another .+$"):
        LocalCluster(tmp_path, brokers=1, port=0).start()
    with pytest.raises(BrokerError, match="^a cluster of 2 brokers is not offered: choose 1 or 3$"):
        LocalCluster(tmp_path, brokers=2)


def test_data_of_one_broker_are_never_opened_by_a_cluster_nor_the_other_way_round(tmp_path: Path) -> None:
    """Refused in one line before Java starts, whichever of them was there first; nothing is added."""
    single, cluster = tmp_path / "single", tmp_path / "cluster"
    (single / "log").mkdir(parents=True)
    (cluster / "controller").mkdir(parents=True)
    with pytest.raises(BrokerError, match="^.+ holds the data of a single broker, not of a cluster: choose"):
        LocalCluster(single, port=0).start()
    with pytest.raises(BrokerError, match="^.+ holds the data of a cluster, not of a single broker: choose"):
        LocalBroker(cluster, port=0).start()
    assert [["log"], ["controller"]] == [sorted(os.listdir(folder)) for folder in (single, cluster)]


def test_a_cluster_of_one_broker_takes_and_serves_records(tmp_path: Path) -> None:
    """A controller and one broker: topics have one copy, transactions are committed and read."""
    with LocalCluster(tmp_path, brokers=1, port=0) as alone:
        admin = AdminClient({"bootstrap.servers": alone.bootstrap, "log_level": 0}, logger=None)
        admin.create_topics([NewTopic("t", 1)])["t"].result(60)
        write_in_transaction(alone, "t", b"value")
        assert [b"value"] == committed_values(alone.bootstrap, "t", 1)
        until(lambda: [(1, {1}, {1})] == replicas(alone.bootstrap, "t"), "one copy, which leads")
