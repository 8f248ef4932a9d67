"""What the person paged at night sees of real workers on a real Kafka: metrics and log lines (point 13)."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import kill
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from prometheus_client.parser import text_string_to_metric_families
from support.system import System, WorkerProcess, free_port, payment
from support.web_client import get

from faust_exactly_once import partition_of
from processes import ROOT
from streamsocial_billing.settings import DEAD_LETTERS, PAYMENTS

GAP_ALARM_S = 0.5
PARTITIONS = 2
PATIENT = {"BILLING_GATEWAY_DEADLINE_S": 100, "BILLING_SESSION_TIMEOUT_S": 110}
Labels = dict[str, str]


class WatchedWorker(WorkerProcess):
    """A worker with a short deadline for gaps; `hold` keeps what is sent again after an abort."""

    @property
    def hold(self) -> Path:
        """The file that holds it."""
        return self.log_file.with_suffix(".hold")

    def start(self, crash_at: tuple[str, int] | None = None, sent: signal.Signals = signal.SIGKILL) -> None:
        """Start it; a watched worker has no crash points."""
        assert crash_at is None
        self.web_port = free_port()
        script = str(ROOT / "tests/support/watched_worker.py")
        self.command = [
            sys.executable, "-P", script, str(GAP_ALARM_S), str(self.hold), f"--datadir={self.datadir}",
            "worker", f"--web-port={self.web_port}", "--loglevel=info",
        ]  # fmt: skip
        self.launch()

    def metrics(self) -> Metrics:
        """What /metrics says now."""
        answer = get(self.web_port, "/metrics")
        assert 200 == answer.status
        return Metrics(answer.body.decode())

    def until(self, true: Callable[[Metrics], bool], within_s: float = 120) -> Metrics:
        """The metrics as soon as they are so."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = self.metrics()
            if true(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{found.text}{self.tail()}")


class Metrics:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def value(self, name: str, **labels: object) -> float | None:
        """The value of one series, or None."""
        found = self.all(name, **labels)
        return found[0][1] if found else None

    def all(self, name: str, **labels: object) -> list[tuple[Labels, float]]:
        """The series of a metric that have these labels."""
        wanted = {key: str(value) for key, value in labels.items()}.items()
        return [
            (one.labels, one.value) for one in self._samples
            if one.name == f"exactly_once_{name}" and wanted <= one.labels.items()
        ]  # fmt: skip

    def running(self) -> list[int]:
        """The partitions whose tasks run."""
        return [int(labels["partition"]) for labels, one in self.all("task_state", state="running") if one]


@contextmanager
def watched(broker: str, folder: Path, name: str, workers: int) -> Iterator[System]:
    """A system of watched workers, none started."""
    with System(broker, folder, name, workers=workers, partitions=PARTITIONS, **PATIENT) as system:
        system.workers = [WatchedWorker(one.name, folder, one.environment) for one in system.workers]
        yield system


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A worker that runs every task, a second one that has not started."""
    with watched(broker, tmp_path_factory.mktemp("watch"), f"watch-{time.time_ns()}", 2) as system:
        worker(system).start()
        runs_everything(worker(system))
        yield system


def worker(system: System, number: int = 0) -> WatchedWorker:
    """One of the workers."""
    found = system.workers[number]
    assert isinstance(found, WatchedWorker)
    return found


def runs_everything(one: WatchedWorker) -> Metrics:
    """Return when the worker answers, has every partition, runs them all."""
    one.wait_ready()
    return one.until(lambda seen: seen.running() == list(range(PARTITIONS)))


def fields(line: str) -> dict[str, str]:
    """The key=value pairs of a status line; values in quotes keep them."""
    return dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line.split("status ", 1)[1]))


def test_an_event_that_hangs_is_an_alarm_until_it_is_committed(system: System) -> None:
    """A gateway that freezes: metrics and log name the event with its age; once it answers, that is over."""
    one, partition = worker(system), partition_of(b"patient", PARTITIONS)
    kill(system.gateway.pid, signal.SIGSTOP)
    try:
        system.submit([payment("patient", "hangs"), payment("patient", "waits")])
        said = fields(one.wait_for_line("ERROR.* status task=.* key=patient alarm=begins"))
        seen = one.until(lambda seen: seen.value("gap_alarm", partition=partition) == 1)
        (event,) = seen.all("oldest_event_offset", partition=partition)
    finally:
        kill(system.gateway.pid, signal.SIGCONT)
    over = fields(one.wait_for_line("WARNING.* status task=.* key=patient alarm=over"))
    one.until(lambda seen: not seen.all("oldest_event_offset", partition=partition))

    place = f"{system.settings.topic(PAYMENTS)}-{partition}@{event[1]:.0f}"
    assert [place, place] == [said["oldest"], over["oldest"]]
    assert ("handler", "handler") == (said["held_by"], event[0]["held_by"])
    assert GAP_ALARM_S <= float(said["gap_s"]) <= float(said["age_s"]) + 0.1
    assert (seen.value("gap_age_seconds", partition=partition) or 0) >= GAP_ALARM_S
    assert float(over["gap_s"]) >= float(said["gap_s"])
    assert "patient" not in seen.text
    assert [said] == [fields(line) for line in one.lines(f"{place} .* alarm=begins")]
    system.wait_answered()


def test_an_aborted_transaction_is_counted_with_its_reason(system: System) -> None:
    """A dead letter that the broker refuses: one abort, named; once the topic takes it, it commits."""
    one, partition = worker(system), partition_of(b"refused", PARTITIONS)
    # what a reader sees already may still have to be counted
    before = one.until(lambda seen: not seen.all("oldest_event_offset"))
    one.hold.touch()
    limit(system, DEAD_LETTERS, "300")
    try:
        system.append([(b"refused", b"x" * 500, partition)])
        aborted = one.until(lambda seen: aborts(seen, partition) == aborts(before, partition) + 1)
        line = fields(one.wait_for_line(rf"status task={partition} .* last_abort=\"RecordRefused"))
    finally:
        limit(system, DEAD_LETTERS, None)
        one.hold.unlink()
    system.wait_answered()
    after = one.until(lambda seen: gained(before, seen, "committed_units_total", partition) == 1)

    assert 0 == gained(before, aborted, "committed_units_total", partition)
    assert 1 == after.value("last_commit_units", partition=partition)
    assert "Message size too large" in line["last_abort"]
    assert "1" == line["aborts"]


def test_the_stages_of_a_rebalance_are_told(system: System) -> None:
    """A second worker joins: each task's revocation, join, fence, recovery have a duration; shares move."""
    first, second = worker(system), worker(system, 1)
    before = first.metrics()
    second.start()
    try:
        second.wait_ready()
        shared = first.until(lambda seen: len(seen.running()) == PARTITIONS // 2)
        here = shared.running()[0]
        stages = {label["stage"]: took for label, took in shared.all("rebalance_stage_seconds")}
        said = fields(first.wait_for_line(rf"status task={here} state=running .* revoke_ms=\d+ join_ms=\d+"))
        moved = second.until(lambda seen: len(seen.running()) == PARTITIONS // 2)
    finally:
        assert 0 == second.stop()
    runs_everything(first)

    assert {"revoke", "join", "fence", "recover"} <= stages.keys()
    assert min(stages.values()) >= 0
    assert stages["fence"] > 0
    assert [0, 1] == sorted([here, *moved.running()])
    assert {"-"} != {said["fence_ms"], said["recover_ms"]}
    assert (shared.value("rebalances_total") or 0) > (before.value("rebalances_total") or 0)
    assert (shared.value("incarnations_opened_total") or 0) > (before.value("incarnations_opened_total") or 0)
    assert PARTITIONS == shared.value("partitions")


def test_a_blocked_task_says_why(broker: str, tmp_path: Path, unique_name: str) -> None:
    """Group offsets of one partition are gone: its task is blocked, by name, while the other one runs."""
    with watched(broker, tmp_path, unique_name, 1) as system:
        one, partition = worker(system), partition_of(b"someone", PARTITIONS)
        one.start()
        runs_everything(one)
        system.submit([payment("someone", "p1")])
        system.wait_answered()
        assert 0 == one.stop()
        forget_offsets(system, partition)
        one.start()
        said = fields(one.wait_for_line("WARNING.* status task=.* state=blocked"))
        seen = one.until(lambda seen: seen.running() == [1 - partition])

        assert str(partition) == said["task"]
        assert "no committed offset for" in said["why"]
        assert 1 == seen.value("task_state", partition=partition, state="blocked")
        assert 1 == seen.value("incarnations_failed_total", reason="OffsetsMissing")
        assert "OffsetsMissing" in said["last_failure"]


def aborts(seen: Metrics, partition: int) -> float:
    """How often a record was refused."""
    return seen.value("commit_aborts_total", partition=partition, reason="RecordRefused") or 0


def gained(before: Metrics, after: Metrics, name: str, partition: int) -> float:
    """How much a counter of a task has grown."""
    return (after.value(name, partition=partition) or 0) - (before.value(name, partition=partition) or 0)


def limit(system: System, name: str, largest: str | None) -> None:
    """Set what a topic takes at most, None: the default; returns when the broker says so too."""
    admin = AdminClient(system.settings.client_config())
    topic = ConfigResource(ConfigResource.Type.TOPIC, system.settings.topic(name))
    kind = AlterConfigOpType.DELETE if largest is None else AlterConfigOpType.SET
    entry: Any = ConfigEntry("max.message.bytes", largest, incremental_operation=kind)
    change = ConfigResource(topic.restype, topic.name, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([change]).values():
        future.result(60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (described,) = admin.describe_configs([topic]).values()
        if (described.result(60)["max.message.bytes"].value == largest) == (largest is not None):
            return
    raise AssertionError(f"{name} does not take {largest}")


def forget_offsets(system: System, partition: int) -> None:
    """Delete the committed offset of every source topic of one task, as their expiry does."""
    admin = AdminClient(system.settings.client_config())
    group = system.settings.app_id
    (listed,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    there = [one for one in listed.result(60).topic_partitions if one.partition != partition]
    (deleted,) = admin.delete_consumer_groups([group]).values()
    deleted.result(60)
    kept = [TopicPartition(one.topic, one.partition, one.offset) for one in there]
    (altered,) = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, kept)]).values()
    altered.result(60)
