"""Starts, steers, kills workers of `programs.py`; reads what they left in Kafka.

Whatever keeps a test from asking its question raises `Trouble`, never AssertionError: a worker that does not
start must not look like a defect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from support.system import WorkerProcess

from faust_exactly_once.cluster import Cluster
from processes import ROOT

PROGRAMS = Path(__file__).with_name("programs.py")
WAIT_S = 90.0
SENT_WITHIN_S = 3.0
READY = r"Worker ready|task \d+ runs"
SOURCES, SINKS = ("payments", "bookings"), ("results",)
COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"
Payment = dict[str, Any]


class Trouble(Exception):
    """Raised when a test cannot ask its question: no start, no record, no line in time."""


def both_layers(defect: str) -> pytest.MarkDecorator:
    """Run a test as `layer` ours, which passes, then plain, which must fail by the promise's own assert."""
    red = pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"plain Faust: {defect}")
    return pytest.mark.parametrize(
        "layer", ["ours", pytest.param("plain", marks=[pytest.mark.plain_faust, red])]
    )


class Worker(WorkerProcess):
    """A worker process of one program over its own data folder."""

    def __init__(self, bench: Bench, name: str, settings: dict[str, Any]) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        super().__init__(name, bench.folder, environment)
        self._asked = False
        self.command = [
            sys.executable, "-P", str(PROGRAMS), "--layer", bench.layer, bench.program, bench.name,
            bench.broker, str(self.datadir), json.dumps({"topic_partitions": bench.partitions} | settings),
            "worker", "--without-web", "--loglevel=info",
        ]  # fmt: skip

    def start(self, *_: Any, **__: Any) -> None:
        """Start it; `wait_ready` waits until it has partitions."""
        self.launch()

    def say(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def wait_for_line(self, pattern: str, within_s: float = WAIT_S) -> str:
        """The first line since the start that matches."""
        try:
            return super().wait_for_line(pattern, within_s)
        except AssertionError as exc:
            raise Trouble(str(exc)) from None

    def wait_ready(self, within_s: float = WAIT_S) -> None:
        """Return when it has said that it has partitions."""
        self.wait_for_line(READY, within_s)

    def wait_for_lines(self, pattern: str, count: int, within_s: float = WAIT_S) -> None:
        """Return when so many lines since the start match."""
        if not self.wait_lines(pattern, count, within_s):
            raise Trouble(f"{self.name} did not say {pattern!r} {count} times: {self.tail()}")

    @property
    def lost(self) -> bool:
        """True if it has ended without being asked to."""
        return self.starts > 0 and not self.running and not self._asked

    def kill(self) -> int:
        """SIGKILL by its own pid, whatever it does."""
        self.end()
        return self.pid

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self._asked = self._asked or self.running
        try:
            return super().stop()
        except AssertionError as exc:
            raise Trouble(str(exc)) from None

    def end(self) -> None:
        """End it whatever it does."""
        self._asked = self._asked or self.running
        super().end()

    def _started(self, output: int | IO[Any]) -> subprocess.Popen[bytes]:
        """Without a guard, which would need the stdin over which the program is steered."""
        return subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=self.environment
        )


class Bench:
    """The topics of one program, its workers, its records; the end of the `with` ends every process."""

    def __init__(
        self, broker: str, folder: Path, name: str, layer: str, program: str, *, partitions: int = 1,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.broker, self.folder, self.name, self.layer, self.program = broker, folder, name, layer, program
        self.partitions = partitions
        self.settings = settings
        self.cluster = Cluster({"bootstrap.servers": broker}, 60)
        self.workers: list[Worker] = []

    def __enter__(self) -> Bench:
        self.cluster.create([NewTopic(self.topic(t), self.partitions, 1) for t in (*SOURCES, *SINKS)])
        return self

    def __exit__(self, *_: object) -> None:
        lost = [worker for worker in self.workers if worker.lost]
        for worker in self.workers:
            worker.end()
        if lost:  # whatever the test found then says nothing
            raise Trouble(f"{lost[0].name} ended by itself: {lost[0].tail()}")

    def topic(self, name: str) -> str:
        """The full name of a topic."""
        return f"{self.name}-{name}"

    def start(self, name: str = "w1", **settings: Any) -> Worker:
        """Start a worker over the data folder of this name; return when it has partitions."""
        worker = Worker(self, name, self.settings | settings)
        self.workers.append(worker)
        worker.start()
        worker.wait_ready()
        return worker

    def send(self, *payments: Payment) -> None:
        """Append payments to the source, outside any transaction: each offset is an event.

        Their key is "user", `ann` where there is none; it chooses the partition as in Faust.
        """
        config = {"bootstrap.servers": self.broker, "partitioner": "murmur2_random", "linger.ms": 1}
        producer = Producer(config)
        for payment in payments:
            key = str(payment.get("user", "ann"))
            producer.produce(self.topic("payments"), json.dumps(payment).encode(), key=key.encode())
        if producer.flush(60):
            raise Trouble("the broker did not take the payments")

    def read(self, topic: str, isolation: str = COMMITTED) -> list[Any]:
        """The values of a topic from its beginning to its end of this moment."""
        return [json.loads(message.value() or b"null") for message in self.messages(topic, isolation)]

    def messages(self, topic: str, isolation: str = COMMITTED) -> list[Message]:
        """The records of a topic from its beginning to its end of this moment."""
        left, found = set(range(self.partitions)), []
        for message in self._poll(topic, isolation, WAIT_S):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                left.discard(message.partition() or 0)
            if not left:
                return found
        raise Trouble(f"{topic} was not read to its end in {WAIT_S} s")

    def wait_for_count(self, topic: str, count: int, within_s: float = WAIT_S) -> None:
        """Return when so many committed records are on a topic."""
        found = (one for one in self._poll(topic, COMMITTED, within_s) if one.error() is None)
        came = sum(1 for _ in islice(found, count))
        if came < count:
            raise Trouble(f"{came} of {count} records came on {topic}: {self._tails()}")

    def wait_for_value(self, topic: str, wanted: Callable[[Any], bool], within_s: float = WAIT_S) -> Any:
        """The first committed value that is wanted, as soon as it is there."""
        for message in self._poll(topic, COMMITTED, within_s):
            if message.error() is None and wanted(value := json.loads(message.value() or b"null")):
                return value
        raise Trouble(f"what the test waits for never came on {topic}: {self._tails()}")

    def ids(self, topic: str, last: str = "last") -> list[str]:
        """The ids of a topic's committed records, as soon as the last one is there.

        To see the offsets committed is not enough: each partition gets its marker in its own time.
        """
        self.wait_for_value(topic, lambda value: last == value["id"])
        return [value["id"] for value in self.read(topic)]

    def give_time(self, topic: str, count: int, within_s: float = SENT_WITHIN_S) -> None:
        """Return when a topic has so many records, committed or not; after a while if they are held back."""
        found = (one for one in self._poll(topic, UNCOMMITTED, within_s) if one.error() is None)
        for _ in islice(found, count):
            pass

    def settle(self) -> None:
        """End the transactions of killed workers, as their next start would; return when it is done.

        The names are those of our layer, of plain Faust: `InitProducerId` waits until an older commit's
        markers are written, aborts what is open.
        """
        for group in ("tasks", "0"):
            for partition in range(self.partitions):
                name = f"{self.name}-{group}-{partition}"
                config = {"bootstrap.servers": self.broker, "transactional.id": name, "log_level": 0}
                Producer(config).init_transactions(WAIT_S)

    def committed(self, topic: str = "payments") -> dict[int, int | None]:
        """Per partition the group's stable committed offset of a topic."""
        places = [(self.topic(topic), partition) for partition in range(self.partitions)]
        return {tp[1]: offset for tp, offset in self.cluster.committed(self.name, places).items()}

    def wait_committed(self, count: int, topic: str = "payments", within_s: float = WAIT_S) -> None:
        """Return when the group's committed offsets of a topic's partitions amount to so many, or more."""
        deadline = time.monotonic() + within_s
        while sum(offset or 0 for offset in self.committed(topic).values()) < count:
            if time.monotonic() > deadline:
                raise Trouble(f"{count} of {topic} not committed: {self.committed(topic)} {self._tails()}")
            time.sleep(0.02)  # Kafka tells nobody of a commit: one can only ask

    def _tails(self) -> str:
        return "".join(worker.tail() for worker in self.workers)

    def _poll(self, topic: str, isolation: str, within_s: float) -> Iterator[Message]:
        """What a reader of the whole topic is told, for so long: records, ends of partitions, errors."""
        deadline = time.monotonic() + within_s
        consumer = Consumer({
            "bootstrap.servers": self.broker, "group.id": f"{self.name}-reader", "enable.auto.commit": False,
            "isolation.level": isolation, "enable.partition.eof": True, "log_level": 0,
        })  # fmt: skip
        try:
            name = self.topic(topic)
            consumer.assign([TopicPartition(name, partition, 0) for partition in range(self.partitions)])
            while time.monotonic() < deadline:
                message = consumer.poll(0.1)
                if message is not None:
                    yield message
        finally:
            consumer.close()
