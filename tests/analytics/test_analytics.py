"""The analytics consumer on a real Kafka: killed at any moment, beside one that reads what was aborted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from support.result_writer import ResultWriter
from support.until import until

from lab.analytics.books import Place, RevenueBooks, Stretch
from lab.analytics.movements import METRICS, RESULTS
from processes import ROOT

POINTS = ("begin", "move_on", "add", "before_commit", "after_commit")
KILLED = str(ROOT / "tests/support/killed_analytics.py")


class Analyst:
    """Starts the consumer over one database, as often as it is killed."""

    def __init__(self, broker: str, prefix: str, folder: Path) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.db = folder / "revenue.sqlite"
        self.beside = folder / "uncommitted.sqlite"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BILLING_")}
        self.environment = inherited | {
            "BILLING_BROKER": f"kafka://{broker}", "BILLING_TOPIC_PREFIX": prefix, "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def start(self, *arguments: str, kill: tuple[str, int] | None = None) -> subprocess.Popen[bytes]:
        """`follow`, which with `kill` (point, N) ends itself by SIGKILL."""
        program = ["-m", "lab.analytics"] if kill is None else ["-P", KILLED, kill[0], str(kill[1])]
        db = self.beside if "--read-uncommitted" in arguments else self.db
        command = [sys.executable, *program, "follow", "--db", str(db), *arguments]
        self.started.append(subprocess.Popen(command, env=self.environment))
        return self.started[-1]

    def to_end(self, *arguments: str) -> None:
        """Count what is left."""
        assert 0 == self.start("--to-end", *arguments).wait(150)

    @contextmanager
    def counted(self, db: Path | None = None) -> Iterator[RevenueBooks]:
        """What it has counted so far."""
        books = RevenueBooks(db or self.db)
        try:
            yield books
        finally:
            books.close()

    def positions(self, db: Path | None = None) -> dict[Place, int]:
        """How far it has read."""
        with self.counted(db) as books:
            return books.positions()

    def revenue(self, db: Path) -> dict[str, int]:
        """By currency."""
        with self.counted(db) as books:
            return books.revenue(RESULTS)


@pytest.fixture
def analyst(broker: str, topic_prefix: str, tmp_path: Path) -> Iterator[Analyst]:
    """A consumer of topics of its own; none of its processes outlives the test."""
    topics = [NewTopic(topic_prefix + name, 3, 1) for name in (RESULTS, METRICS)]
    admin = AdminClient({"bootstrap.servers": broker})
    for made in admin.create_topics(topics).values():
        made.result(60)
    found = Analyst(broker, topic_prefix, tmp_path)
    yield found
    for one in found.started:
        one.kill()
        one.wait()


@pytest.mark.timeout(600)
def test_a_consumer_that_is_killed_loses_no_record_and_counts_none_twice(
    broker: str, topic_prefix: str, analyst: Analyst
) -> None:
    """Killed at each point of its transaction, twice, then at any moment: each topic gives the true sums."""
    with ResultWriter(broker, topic_prefix, seed=1) as writer:
        for point in POINTS:
            for nth in (1, 3):
                assert -signal.SIGKILL == analyst.start(kill=(point, nth)).wait(150), point
        for _ in range(4):
            before = analyst.positions()
            running = analyst.start()
            until(lambda before=before: before != analyst.positions(), "records counted")  # type: ignore[misc]
            running.kill()
            assert -signal.SIGKILL == running.wait(150)
    analyst.to_end()
    with analyst.counted() as books:
        assert writer.lines() == books.lines(RESULTS)
        assert writer.lines() == books.lines(METRICS)
        assert sum(charged for *_, charged, _ in books.lines(RESULTS)) > 0


@pytest.mark.timeout(600)
def test_read_uncommitted_reports_revenue_that_never_was(
    broker: str, topic_prefix: str, analyst: Analyst
) -> None:
    """Beside each other over the same topics: the one is right, the other too high by what was aborted."""
    with ResultWriter(broker, topic_prefix, seed=2) as writer:
        readers = [analyst.start(), analyst.start("--read-uncommitted")]
        for db in (analyst.db, analyst.beside):
            until(lambda db=db: bool(analyst.positions(db)), "records counted")  # type: ignore[misc]
        until(lambda: len(writer.aborted) == 2 and sum(writer.aborted.values()) > 50_000, "aborted revenue")
    for one in readers:
        one.terminate()
        assert 0 == one.wait(90)
    analyst.to_end()
    analyst.to_end("--read-uncommitted")
    committed, uncommitted = (analyst.revenue(db) for db in (analyst.db, analyst.beside))
    assert dict(writer.net()) == committed
    assert {one: net + writer.aborted[one] for one, net in writer.net().items()} == uncommitted
    assert committed != uncommitted


def test_records_that_are_gone_are_not_skipped_in_silence(
    broker: str, topic_prefix: str, analyst: Analyst
) -> None:
    """A position outside the log ends the consumer: a person has to decide, a sum would be wrong."""
    with analyst.counted() as books:
        books.add({(RESULTS, 0): Stretch(None, 5000, [])})
    assert 1 == analyst.start().wait(150)
