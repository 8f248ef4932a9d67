"""Trouble at the edges: no broker at the end, lost offsets, grown topics, foreign producers, a full disk."""

from __future__ import annotations

import math
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from support.producers import idempotent_producer
from support.system import CALM, Payments, Stream, System, payment
from support.until import until
from support.web_client import get

from broker import LocalBroker
from faust_exactly_once import partition_of
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.stable_ends import HANGING_S, SAY_EVERY_S
from processes import ROOT
from processes.process import Process
from streamsocial_billing.settings import PAYMENTS, RETRY

APP = ROOT / "tests" / "support" / "sources_app.py"
ENDS_WITHIN_S = 18.0
BUSY = 2.0
"""How much longer a machine may take that does much else."""
STOPPED = re.compile(r"task (\d) is stopped: ")
WAIT_S = 90.0


# -- a stop without a broker


@pytest.mark.timeout(480)
@pytest.mark.parametrize("gone", ["for_long", "frozen_amid_commits"])
def test_a_worker_without_its_broker_ends_in_time(gone: str, tmp_path: Path, unique_name: str) -> None:
    """SIGTERM ends it within 18 s with exit code 0; afterwards nothing is lost or double."""
    kafka = LocalBroker(tmp_path / "kafka", port=0)
    with kafka as own, System(own.bootstrap, tmp_path, unique_name) as system:
        system.start()
        system.submit(Payments(seed=1).take(60))
        system.wait_answered()
        if gone == "for_long":
            own.kill()
            system.worker.wait_for_line(r"Kafka is still not reachable, \d+ s")
        else:
            system.gateway.faults(latency_ms=400)
            calls = gateway_calls(system)
            system.submit(Payments(seed=2).take(60))
            until(lambda: gateway_calls(system) > calls, "a gateway call")
            own.pause()  # what the handlers do meets silence: amid the last commit, the longest of all waits
        started = time.monotonic()
        assert 0 == system.worker.stop()
        assert time.monotonic() - started < BUSY * ENDS_WITHIN_S
        own.resume()
        own.start()
        system.gateway.faults()
        system.worker.start()
        system.worker.wait_ready()  # all may be answered already: a stop must not meet a bare interpreter
        system.wait_answered(within_s=90)
        system.check()


def gateway_calls(system: System) -> int:
    """How many calls the gateway has had."""
    calls = system.gateway.get("/_stats")["calls"]
    assert isinstance(calls, int)
    return calls


# -- offsets that are missing in part


class Tiny:
    """The tiny app of one test: its topics, what was sent, what it handled."""

    def __init__(self, broker: str, folder: Path, name: str) -> None:
        self.broker, self.folder, self.name = broker, folder, name
        self.a, self.b = f"{name}-a", f"{name}-b"
        self.admin = AdminClient({"bootstrap.servers": broker})
        self.cluster = Cluster({"bootstrap.servers": broker}, 60)
        self.cluster.create([NewTopic(topic, 2, 1) for topic in (self.a, self.b)])

    def send(self, topic: str, count: int) -> None:
        """Append `count` events to each partition."""
        producer = idempotent_producer(self.broker)
        for number in range(2 * count):
            key = f"{topic}-{number % 2}".encode()  # a lane of its own
            producer.produce(topic, b"", key=key, partition=number % 2)
        assert 0 == producer.flush(60)
        producer.close()

    def handled(self, topic: str) -> list[tuple[int, int]]:
        """Partition and offset of each handled event of a topic, sorted."""
        file = self.folder / "handled"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return sorted((int(partition), int(offset)) for name, partition, offset in lines if name == topic)

    def wait_handled(self, topic: str, count: int) -> None:
        """Return when `count` events of each partition were handled; asserts that each was, once."""
        every = [(partition, offset) for partition in (0, 1) for offset in range(count)]
        until(lambda: len(self.handled(topic)) >= len(every), f"{count} of {topic}")
        assert every == self.handled(topic)

    def log(self) -> str:
        """What its workers have said."""
        return (self.folder / "log").read_text()

    def committed(self, topic: str) -> dict[tuple[str, int], int | None]:
        """The group's offsets on a topic."""
        return self.cluster.committed(self.name, [(topic, 0), (topic, 1)])

    @contextmanager
    def running(self, *sources: str, kill: bool = False) -> Iterator[None]:
        """A worker on these sources, at the end stopped in order, or killed."""
        chosen = [self.name, self.broker, str(self.folder), ",".join(sources)]
        command = [sys.executable, "-P", str(APP), *chosen, "worker", "--without-web"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        worker = Process(self.name, command, self.folder / "log", environ)
        worker.launch()
        try:
            yield
            if not kill:
                assert (True, 0) == (worker.terminate(60), worker.code), self.log()[-3000:]
        finally:
            worker.kill()

    def forget_offsets(self, topic: str) -> None:
        """Create a topic anew: Kafka drops the group's offsets on it, as it does when they expire."""
        for future in self.admin.delete_topics([topic]).values():
            future.result(60)
        until(lambda: set(self.committed(topic).values()) == {None}, "no offsets")
        fresh = Cluster({"bootstrap.servers": self.broker}, 60)  # ours knows that there was one
        until(lambda: topic not in fresh.topics([topic]), "no topic")
        self.cluster.create([NewTopic(topic, 2, 1)])

    def choose_offsets(self, topic: str, offset: int) -> None:
        """What kafka-consumer-groups --reset-offsets does, the workers being stopped."""
        places = [TopicPartition(topic, partition, offset) for partition in (0, 1)]
        asked = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(self.name, places)])
        for answer in asked[self.name].result(60).topic_partitions:
            assert answer.error is None


@pytest.fixture
def tiny(broker: str, tmp_path: Path, unique_name: str) -> Tiny:
    """The tiny app with two topics of two partitions."""
    return Tiny(broker, tmp_path, unique_name)


def test_a_source_that_a_deploy_adds_is_read_from_its_beginning(tiny: Tiny) -> None:
    """Although its log has records from before, and its task has offsets and state; nobody is asked."""
    tiny.send(tiny.a, 10)
    with tiny.running(tiny.a):
        tiny.wait_handled(tiny.a, 10)
        tiny.send(tiny.b, 5)
    with tiny.running(tiny.a, tiny.b):
        tiny.wait_handled(tiny.b, 5)
    tiny.wait_handled(tiny.a, 10)
    assert "no committed offset" not in tiny.log()


def test_a_source_whose_offset_was_lost_stops_its_task_until_someone_chooses(tiny: Tiny) -> None:
    """Nothing of the task is handled; once an offset is chosen, it goes on there."""
    for topic in (tiny.a, tiny.b):
        tiny.send(topic, 10)
    with tiny.running(tiny.a, tiny.b):
        tiny.wait_handled(tiny.a, 10)
        tiny.wait_handled(tiny.b, 10)
    tiny.forget_offsets(tiny.b)
    for topic in (tiny.a, tiny.b):
        tiny.send(topic, 3)
    with tiny.running(tiny.a, tiny.b):
        until(lambda: {"0", "1"} == set(STOPPED.findall(tiny.log())), "both tasks stopped")
    assert f"no committed offset for {tiny.b}-1, while other sources" in tiny.log()
    assert f"{tiny.b} was read before" in tiny.log()
    tiny.wait_handled(tiny.b, 10)
    tiny.wait_handled(tiny.a, 10)
    tiny.choose_offsets(tiny.b, 2)
    with tiny.running(tiny.a, tiny.b):
        tiny.wait_handled(tiny.a, 13)
        until(lambda: len(tiny.handled(tiny.b)) == 22, "one more of b in each partition")
    first_ones = [(partition, offset) for partition in (0, 1) for offset in range(10)]
    assert sorted([*first_ones, (0, 2), (1, 2)]) == tiny.handled(tiny.b)


def test_a_task_that_was_killed_amid_its_first_event_begins_there_again(tiny: Tiny) -> None:
    """Its other source has an offset already: nobody takes the first one's for lost."""
    hold = tiny.folder / "hold"
    hold.touch()
    for topic in (tiny.a, tiny.b):
        tiny.send(topic, 3)
    with tiny.running(tiny.a, tiny.b, kill=True):
        until(lambda: len(tiny.handled(tiny.b)) == 6, "everything of b")
        until(lambda: set(tiny.committed(tiny.b).values()) == {3}, "the offsets of b")
    assert [] == tiny.handled(tiny.a)
    hold.unlink()
    with tiny.running(tiny.a, tiny.b):
        tiny.wait_handled(tiny.a, 3)
    tiny.wait_handled(tiny.b, 3)


# -- partitions that grow


@pytest.mark.parametrize("grown", [(PAYMENTS,), (PAYMENTS, RETRY)], ids=["one_source", "every_source"])
def test_nothing_is_handled_once_a_source_has_more_partitions(
    grown: tuple[str, ...], broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The worker names topic and counts, then ends; a new start is refused; what comes later is untouched."""
    events = [payment(f"user-{number}", f"pay-{number}") for number in range(40)]
    with System(broker, tmp_path, unique_name) as system, connected(broker) as sender:
        system.start()
        system.submit(events)
        system.wait_answered()
        topics = [system.settings.topic(name) for name in grown]
        grow(broker, topics, 6)
        for event in events:  # at once, where a sender that knows of the growth puts them
            key = event.user_id.encode()
            if partition_of(key, 6) < 4:
                sender.produce(topics[0], event.to_bytes(), key=key, partition=partition_of(key, 6))
        assert 0 == sender.flush(60)
        worker = system.worker
        expected = f"topic {topics[0]} has 6 partitions, its tables were made for 4"
        worker.wait_for_line(f"the worker stops: {expected}")
        worker.wait_ended()  # with its last line
        assert worker.log_file.read_text().splitlines()[-1].startswith(f"streamsocial-billing: {expected}")
        worker.start()
        worker.wait_ended()
        assert f"{topics[0]} has 6" in worker.log_file.read_text().splitlines()[-1]
        assert 40 == system.answered()
        assert 0 == len(system.dead_letters.records)


@contextmanager
def connected(broker: str) -> Iterator[Producer]:
    """A producer that needs no time for its first record."""
    producer = idempotent_producer(broker, {"linger.ms": 0})
    producer.list_topics(timeout=60)
    yield producer
    producer.close()


def grow(broker: str, topics: list[str], partitions: int) -> None:
    """Add partitions; return when the broker knows them."""
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_partitions([NewPartitions(topic, partitions) for topic in topics]).values():
        future.result(60)
    cluster = Cluster({"bootstrap.servers": broker}, 60)
    until(lambda: {fact.partitions for fact in cluster.topics(topics).values()} == {partitions}, "growth")


# -- foreign producers


def test_an_owner_that_a_stale_worker_fences_opens_its_tasks_again(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Its transactional ids are taken amid work: it stays a member, goes on, loses nothing."""
    payments = Payments(seed=4)
    with System(broker, tmp_path, unique_name, partitions=2, **CALM) as system:
        system.start()
        with Stream(system, payments, chunk=20, ahead=60, most=40_000):
            system.wait_answered(100)
            for opened in (4, 6, 8):
                fence(system)
                until(lambda: len(system.worker.running_tasks()) >= opened, "both tasks again")  # noqa: B023
                system.wait_answered(system.answered() + 100)
        system.worker.wait_for_line("task 0 starts again after TaskFenced")
        system.worker.wait_for_line("task 1 starts again after TaskFenced")
        system.check()
        log = system.worker.log_file.read_text()
        assert 1 == log.count("Successfully synced group")  # it never left
        assert "Traceback" not in log


def fence(system: System) -> None:
    """What a worker that wakes up late does: open a producer of each task."""
    for partition in range(system.settings.partitions):
        name = f"{system.settings.app_id}-tasks-{partition}"
        zombie = Producer({**system.settings.client_config(), "transactional.id": name})
        zombie.init_transactions(60)
        zombie.close()


@pytest.mark.timeout(600)
def test_a_foreign_transaction_on_a_changelog_is_named_and_waited_for(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Only its task waits, until that transaction's own time-out; what it wrote is never in a table."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        began = time.monotonic()
        system.start()
        # open until the next start has met it and was asked, also on a machine that stalls meanwhile
        timeout_s = max(20, math.ceil(4 * (time.monotonic() - began)))
        system.submit([payment(f"user-{number}", f"pay-{number}") for number in range(20)])
        system.wait_answered()
        system.stop_workers()
        log = system.settings.changelog("charges")
        foreign = Producer({
            **system.settings.client_config(), "transactional.id": f"{unique_name}-foreign",
            "transaction.timeout.ms": timeout_s * 1000,
        })  # fmt: skip
        foreign.init_transactions(60)
        foreign.begin_transaction()
        foreign.produce(log, b"-1", key=b"user-1", partition=0)
        assert 0 == foreign.flush(60)
        worker, started = system.worker, time.monotonic()
        worker.start()
        worker.wait_for_line(rf"task 0: waiting for an open transaction on {log}-0 at \d+")
        worker.wait_for_line(r"task 1 runs")
        assert not [line for line in worker.running_tasks() if "task 0 runs" in line]
        body = get(worker.web_port, "/ready")
        assert (503, True) == (body.status, f"{log}-0".encode() in body.body)
        worker.wait_for_line(r"task 0 runs")
        took_s = time.monotonic() - started
        assert took_s < timeout_s + 120
        said = worker.log_file.read_text().count("waiting for an open transaction")
        assert said <= 2 + took_s / SAY_EVERY_S + took_s / HANGING_S  # now and then, not all the time
        system.submit([payment(f"user-{number}", f"pay-{number}") for number in range(20)])
        system.check()


# -- a full disk


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit(2)")
def test_a_full_disk_is_named_and_costs_nothing(broker: str, tmp_path: Path, unique_name: str) -> None:
    """RocksDB cannot write: the worker says so, tries again; with room on the disk it goes on by itself."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        system.start()
        payments = Payments(seed=5)
        system.submit(payments.take(60))
        system.wait_answered()
        limit_files(system.worker.pid, 1)
        system.submit(payments.take(60))
        for partition in (0, 1):
            system.worker.wait_for_line(f"task {partition} starts again after StoreFailed.*File too large")
            system.worker.wait_for_line(f"task {partition} starts again after OSError.*File too large")
        assert system.worker.running
        limit_files(system.worker.pid, resource.RLIM_INFINITY)
        system.wait_answered()
        system.check()
        log = system.worker.log_file.read_text()
        assert [] == [word for word in ("Traceback", "rebuilt from empty") if word in log]


def limit_files(pid: int, size: int) -> None:
    """Let a process write no file beyond `size` bytes."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
