"""The layer's wheel, installed alone: what it brings, and its example on a real Kafka."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from support.alone import PACKAGE, built, installed
from support.producers import idempotent_producer
from support.system import free_port

from faust_exactly_once import Cluster

PARTITIONS = 4
USERS = ("ann", "bob", "cyd")
WORDS = ("yes", "no", "perhaps")
EVENTS = 600
TYPED = """
import importlib.resources
print((importlib.resources.files('faust_exactly_once') / 'py.typed').is_file())
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the layer's wheel, without the product."""
    folder = tmp_path_factory.mktemp("alone")
    return installed(built(folder), folder / "env")


def says(python: Path, code: str) -> str:
    """What a program prints in that environment, wherever this checkout is."""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_wheel_brings_the_layer_without_the_product(alone: Path) -> None:
    """The layer comes from there, the product cannot be imported."""
    found = says(alone, "import faust_exactly_once as e; print(e.__file__)")
    assert Path(found).is_relative_to(alone.parents[1])
    for name in ("streamsocial_billing", "tables"):
        assert "None" == says(alone, f"import importlib.util as u; print(u.find_spec({name!r}))")


def test_faust_finds_transport_and_store_of_the_wheel_by_their_url(alone: Path) -> None:
    """Through the entry points that the wheel itself brings; its types are there for mypy."""
    store = "from faust.stores import by_url; print(by_url('exactly-once://').__module__)"
    transport = (
        "from faust.transport.drivers import TRANSPORTS as t; print(t.by_url('exactly-once://h').__module__)"
    )
    assert ["faust_exactly_once.store", "faust_exactly_once.transport"] == [
        says(alone, store), says(alone, transport),
    ]  # fmt: skip
    assert "True" == says(alone, TYPED)


def start_words(python: Path, broker: str, folder: Path, app_id: str) -> subprocess.Popen[bytes]:
    """A worker of the word counter."""
    variables = os.environ | {"WORDS_APP_ID": app_id, "WORDS_BROKER": broker}
    command = [str(python), str(PACKAGE / "examples/word_counts.py"), f"--datadir={folder / 'data'}"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, "worker", f"--web-port={free_port()}"], cwd=folder, env=variables, stdout=log,
            stderr=log,
        )  # fmt: skip


@pytest.mark.timeout(600)
def test_word_counts_are_those_of_an_undisturbed_run(
    alone: Path, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Batches and a plain agent share a table, two SIGKILLs: each event has one record, each count holds."""
    log = CountsLog(broker, unique_name)
    moments = random.Random(4)
    worker = start_words(alone, broker, tmp_path, unique_name)
    log.wait_for_topics()
    for _ in range(2):
        log.send(EVENTS // 3, moments)
        log.read_until(len(log.records) + 1)
        worker.kill()
        worker.wait()
        log.send(EVENTS // 6, moments)
        worker = start_words(alone, broker, tmp_path, unique_name)
    log.read_until(EVENTS)
    worker.kill()
    worker.wait()
    log.close()
    assert EVENTS == len(log.records)
    assert log.said == {user: log.folded(user) for user in USERS}


class CountsLog:
    """Sends sayings; reads the counts that were committed."""

    def __init__(self, broker: str, app_id: str) -> None:
        client = {"bootstrap.servers": broker}
        self._cluster = Cluster(client, 60)
        self._app_id = app_id
        self._producer = idempotent_producer(broker)
        self._consumer = Consumer({
            **client, "group.id": f"{app_id}-reader", "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "enable.auto.commit": False,
        })  # fmt: skip
        self.records: list[tuple[str, dict[str, int]]] = []
        self.said: dict[str, Counter[str]] = {user: Counter() for user in USERS}
        self._sent = 0

    def wait_for_topics(self) -> None:
        """Return when the worker has created its topics."""
        names = [f"{self._app_id}-{name}" for name in ("said", "forget", "counts")]
        for _ in range(1200):
            found = self._cluster.topics(names)
            if len(found) == len(names):
                break
            self._consumer.poll(0.1)
        assert {PARTITIONS} == {fact.partitions for fact in found.values()}
        self._consumer.subscribe(names[-1:])

    def send(self, count: int, moments: random.Random) -> None:
        """Some sayings of three users; adds their words to `said`.

        `forget` names words that nobody says: the order between the two topics is not told by their offsets.
        """
        for _ in range(count):
            user = moments.choice(USERS)
            self._sent += 1
            if self._sent % 4 == 0:
                word = f"never-{self._sent}"
                self._producer.produce(f"{self._app_id}-forget", word, key=user)
                self.said[user][word] = 0
            else:
                words = moments.choices(WORDS, k=moments.randrange(1, 6))
                self.said[user].update(words)
                self._producer.produce(f"{self._app_id}-said", " ".join(words), key=user)
        assert 0 == self._producer.flush(60)

    def read_until(self, count: int) -> None:
        """Return when so many records were committed, at most all of them."""
        for _ in range(600):
            if len(self.records) >= min(count, EVENTS):
                return
            for message in self._consumer.consume(100, 0.2):
                assert message.error() is None, message.error()
                value: dict[str, int] = json.loads(message.value() or b"")
                self.records.append(((message.key() or b"").decode(), value))
        raise AssertionError(f"{len(self.records)} of {count} records")

    def folded(self, user: str) -> Counter[str]:
        """The last count of each word of a user; a count never goes back."""
        last: Counter[str] = Counter()
        for ids_of, counts in self.records:
            if ids_of == user:
                assert all(counts[word] >= last[word] for word in counts)
                last.update({word: counts[word] - last[word] for word in counts})
        return last

    def close(self) -> None:
        """End the reader."""
        self._consumer.close()

