"""Workers of the counting app with a load on their topics, for tests of releases side by side."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from confluent_kafka.admin import NewTopic
from support.producers import idempotent_producer
from support.system import TopicReader, WorkerProcess

from faust_exactly_once.cluster import Cluster
from processes import ROOT
from streamsocial_billing.settings import Settings

APP = ROOT / "tests" / "support" / "counting_app.py"
PARTITIONS = 4
KEYS = 40
SEND_EVERY_S = 0.003


class CountingWorker(WorkerProcess):
    """A worker of the counting app; `topics` is its release."""

    topics: Sequence[str] = ()
    app: Sequence[str] = ()

    def start(self, crash_at: tuple[str, int] | None = None, sent: signal.Signals = signal.SIGKILL) -> None:
        """Start it on its release; the counting app has no crash points."""
        assert crash_at is None
        self.command = [
            sys.executable, "-P", *self.app, ",".join(self.topics), f"--datadir={self.datadir}", "worker",
            "--without-web", "--loglevel=info",
        ]  # fmt: skip
        self.launch()


class Fleet:
    """Topics, workers, a reader of the counts; the end of the `with` ends every process."""

    def __init__(self, broker: str, folder: Path, name: str, *, topics: Sequence[str], workers: int) -> None:
        self.topics = topics
        self.counted: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._broker = broker
        self._folder = folder
        self._name = name
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.workers = [CountingWorker(f"w{number + 1}", folder, env) for number in range(workers)]
        for worker in self.workers:
            worker.app = (str(APP), name, broker, str(folder))

    def __enter__(self) -> Fleet:
        names = [f"{self._name}-{topic}" for topic in (*self.topics, "counted")]
        cluster = Cluster({"bootstrap.servers": self._broker}, 60)
        cluster.create([NewTopic(name, PARTITIONS, 1) for name in names])
        settings = Settings(app_id=self._name, broker=f"kafka://{self._broker}")
        self._reader = TopicReader(settings, names[-1], threading.Condition(), self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()
        self._reader.close()

    def start(self, release: Sequence[str], *workers: CountingWorker) -> None:
        """Start these workers on a release; return when each runs a task."""
        for worker in workers:
            worker.topics = release
            worker.start()
        for worker in workers:
            worker.wait_ready()

    def wait_counted(self, topic: str, count: int) -> None:
        """Return when so many events of the topic are counted, in committed records."""
        if not self._reader.wait(lambda: self.counted[topic] >= count):
            logs = "".join(f"\n--- {worker.name}{worker.tail()}" for worker in self.workers)
            raise AssertionError(f"{topic}: {self.counted[topic]} of {count} counted{logs}")

    def committed(self, topic: str) -> int:
        """How many events of the topic are handled, by the group's offsets: each offset is an event."""
        cluster = Cluster({"bootstrap.servers": self._broker}, 60)
        places = [(f"{self._name}-{topic}", partition) for partition in range(PARTITIONS)]
        return sum(offset or 0 for offset in cluster.committed(self._name, places).values())

    @contextmanager
    def load(self) -> Iterator[None]:
        """Send events to every topic, key after key, until the end of the `with`."""
        stop = threading.Event()
        sender = threading.Thread(target=self._send, args=(stop,))
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()

    def check(self) -> None:
        """Every event is counted once, in a table that all topics share; no task was open on two workers."""
        for topic in self.topics:
            self.wait_counted(topic, self.sent[topic])
        for worker in self.workers:
            assert 0 == worker.stop(), worker.tail()
        open_twice = overlaps((self._folder / "spans").read_text().splitlines())
        assert {} == open_twice, f"tasks whose handlers ran in several processes at once: {open_twice}"
        told = [orjson.loads(message.value()) for message in self._reader.records]
        print(f"sent {dict(self.sent)}, counted {len(told)}")
        once = {(one["topic"], one["partition"], one["offset"]) for one in told}
        assert (sum(self.sent.values()),) * 2 == (len(told), len(once)), (self.sent, len(told), len(once))
        counts = defaultdict(list)
        for message, one in zip(self._reader.records, told, strict=True):
            counts[message.key()].append(one["count"])
        odd = {key: found for key, found in counts.items() if found != list(range(1, len(found) + 1))}
        assert {} == odd, f"keys whose counts are not one after the other: {odd}"

    def _count(self, message: Any) -> None:
        """Called by the reader for each record, under its lock."""
        self.counted[orjson.loads(message.value())["topic"].removeprefix(f"{self._name}-")] += 1

    def _send(self, stop: threading.Event) -> None:
        """Without transactions: every offset is an event."""
        producer = idempotent_producer(self._broker, {"linger.ms": 2})
        while not stop.wait(SEND_EVERY_S):
            topic = self.topics[sum(self.sent.values()) % len(self.topics)]
            producer.produce(f"{self._name}-{topic}", b"{}", key=b"k%d" % (self.sent[topic] % KEYS))
            self.sent[topic] += 1
            producer.poll(0)
        assert 0 == producer.flush(60)


def overlaps(spans: list[str]) -> dict[int, set[int]]:
    """Per partition the pids whose handlers ran while another's did; lines as the app writes them."""
    running: defaultdict[int, Counter[int]] = defaultdict(Counter)
    found: defaultdict[int, set[int]] = defaultdict(set)
    for line in spans:
        what, _, pid, partition = line.split()
        of_task = running[int(partition)]
        of_task[int(pid)] += 1 if what == "begin" else -1
        busy = {pid for pid, count in of_task.items() if count}
        if len(busy) > 1:
            found[int(partition)] |= busy
    return dict(found)
