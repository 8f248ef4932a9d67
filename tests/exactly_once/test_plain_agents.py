"""Plain Faust agents on the layer: one event after the other, each exactly once, however the agent ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import NewTopic
from support.producers import idempotent_producer
from support.system import free_port

from faust_exactly_once.cluster import Cluster
from processes.process import Process

APP = Path(__file__).parents[1] / "support" / "plain_app.py"
PARTITIONS = 2
WAIT_S = 90.0


class PlainApp:
    """The app's processes with a sender, a reader of its committed results."""

    def __init__(self, broker: str, folder: Path, name: str) -> None:
        self._name, self._broker, self._folder = name, broker, folder
        client = {"bootstrap.servers": broker}
        self.cluster = Cluster(client, 60)
        self.cluster.create([NewTopic(f"{name}-{t}", PARTITIONS, 1) for t in ("orders", "results")])
        self._producer = idempotent_producer(broker)
        self._reader = Consumer({
            **client, "group.id": f"{name}-reader", "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "enable.auto.commit": False,
        })  # fmt: skip
        self._reader.subscribe([f"{name}-results"])
        self.results: list[tuple[str, str]] = []
        self.processes: list[Process] = []

    def start(self, **variables: str) -> Process:
        """One worker more, with a data folder of its own."""
        folder = self._folder / f"w{len(self.processes)}"
        folder.mkdir()
        command = [sys.executable, "-P", str(APP), self._name, self._broker, str(folder)]
        command += ["worker", f"--web-port={free_port()}", "--loglevel=info"]
        worker = Process(folder.name, command, folder / "log", os.environ | variables)
        worker.launch()
        self.processes.append(worker)
        return worker

    def send(self, *orders: tuple[str, str]) -> None:
        """Append (key, value)."""
        for key, value in orders:
            self._producer.produce(f"{self._name}-orders", value, key=key)
        assert 0 == self._producer.flush(60)

    def wait(self, enough: Callable[[list[tuple[str, str]]], bool]) -> list[tuple[str, str]]:
        """The results once there are enough."""
        for _ in range(int(WAIT_S / 0.25)):
            for message in self._reader.consume(500, 0.25):
                assert message.error() is None
                self.results.append(((message.key() or b"").decode(), (message.value() or b"").decode()))
            if enough(self.results):
                return self.results
        raise AssertionError(f"{self.results[-20:]}\n{self.logs()}")

    def logs(self) -> str:
        """The end of each worker's log."""
        return "\n".join(log.read_text()[-3000:] for log in sorted(self._folder.glob("w*/log")))

    def whole_log(self, number: int) -> str:
        """All that a worker has said."""
        return (self._folder / f"w{number}" / "log").read_text()

    def hold(self, number: int) -> Path:
        """The file that keeps `long` events of a worker waiting."""
        return self._folder / f"w{number}" / "hold"

    def end(self) -> None:
        """Every process is gone."""
        for process in self.processes:
            process.kill()
        self._reader.close()


@pytest.fixture
def plain(broker: str, tmp_path: Path, unique_name: str) -> Iterator[PlainApp]:
    """The app without any worker yet."""
    app = PlainApp(broker, tmp_path, unique_name)
    yield app
    app.end()


@pytest.mark.parametrize("failure", ["raise", "leave", "return", "cancel"])
def test_an_agent_that_fails_gets_its_event_again_with_nothing_half_done(
    failure: str, plain: PlainApp
) -> None:
    """Two failures, then success; half results are never seen, later events wait, order holds."""
    worker = plain.start()
    plain.send(("k", "count a"), ("k", f"twice {failure}"), ("k", "count b"), ("k", "count c"))
    expected = ["count a 1", f"twice {failure} 2", "count b 3", "count c 4"]
    found = plain.wait(lambda results: len(results) >= 4)
    assert (True, 0) == (worker.terminate(60), worker.code), plain.logs()
    assert [("k", value) for value in expected] == found


def test_an_event_that_always_fails_is_given_to_the_application(plain: PlainApp) -> None:
    """After the last try its unit holds only what `on_handler_failure` sent; the next event goes on."""
    plain.start()
    plain.send(("k", "always raise"), ("k", "count after"))
    found = plain.wait(lambda results: len(results) >= 2)
    assert [("k", "buried always raise"), ("k", "count after 1")] == found


def test_an_agent_amid_an_event_of_a_revoked_task_is_cancelled(plain: PlainApp) -> None:
    """The event's next owner handles it while the first worker's agent still hung on it; once."""
    plain.start()
    plain.wait(lambda _: "runs: fenced" in plain.whole_log(0))
    plain.hold(0).touch()
    keys = [f"k{number}" for number in range(40)]
    plain.send(*((key, "long") for key in keys))
    plain.start()  # the rebalance revokes what the first one hangs on
    plain.wait(lambda results: len(results) > 0)
    plain.hold(0).unlink()
    found = plain.wait(lambda results: len(results) >= len(keys))
    assert sorted((key, "long 1") for key in keys) == sorted(found)


def more_than(count: int, results: list[tuple[str, str]]) -> bool:
    """True if there are more than so many results."""
    return len(results) > count


def test_kills_amid_plain_agents_lose_nothing_and_double_nothing(plain: PlainApp) -> None:
    """Five SIGKILLs under load: each key is counted 1, 2, 3, ... without a hole, in order."""
    users = [f"user-{number}" for number in range(7)]
    for number in range(5):
        worker = plain.start()
        plain.send(*((user, f"count {number}") for _ in range(40) for user in users))
        already = len(plain.results)
        plain.wait(partial(more_than, already + 20))
        worker.kill()
    plain.start()
    found = plain.wait(lambda results: len(results) >= 5 * 40 * len(users))
    for user in users:
        assert list(range(1, 201)) == [int(value.split()[-1]) for key, value in found if key == user]


def test_an_agent_that_buffers_events_ends_the_worker(plain: PlainApp) -> None:
    """`take` has no unit: the worker ends at once with one line that says what to do."""
    worker = plain.start(PLAIN_APP_TAKES="1")
    assert (True, 1) == (worker.wait(90), worker.code), plain.logs()
    assert "plain_app.py: take, through, group_by, joins" in plain.logs()
