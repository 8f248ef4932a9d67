"""The layer's state as Prometheus metrics; each layer has a registry of its own."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric

from .assigned_task import STATES
from .counts import BUCKETS_S

if TYPE_CHECKING:
    from .layer import Layer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BOUNDS = [*map(str, BUCKETS_S), "+Inf"]
# there from the start: increase() needs the 0 before the 1
ABORTS = ("TransactionAborted", "RecordRefused")
FAILURES = (
    "TaskFenced", "MembershipLost", "OutcomeUnknown", "KafkaUnavailable", "StoreFailed", "OffsetsMissing",
    "HandlerFailed", "RecordRefused",
)  # fmt: skip
Status = Mapping[str, Any]


class Metrics:
    """The metrics of one worker, in Prometheus' text format.

    `registry` holds those of the process (memory, CPU time); an application may register its own there.
    """

    def __init__(self, layer: "Layer") -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._layer = layer
        # of its own: the loop's threads may all be waiting for a broker when somebody has to see just that
        self._thread = ThreadPoolExecutor(1, "metrics")

    async def text(self) -> bytes:
        """Every metric: the state is taken on the event loop, where it changes; written beside it."""
        seen = Snapshot(self._layer.status(), self._layer.worker_status())
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, seen)

    def _write(self, seen: "Snapshot") -> bytes:
        return generate_latest(seen) + generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a layer said of itself at one moment: its tasks, its worker."""

    tasks: Sequence[Status]
    worker: Status

    def collect(self) -> Iterable[Metric]:
        """Every metric of the layer."""
        for kind, name, text, value in OF_A_TASK:
            family = kind(name, text, "partition")
            for task in self.tasks:
                family.add_metric([_number(task)], value(task))
            yield family
        yield self._states()
        yield from self._oldest()
        yield self._aborts()
        yield self._durations()
        yield self._stages()
        yield from self._of_the_worker()

    def _states(self) -> Metric:
        family = _gauge("task_state", "1 for the state that a task is in.", "partition", "state")
        for task in self.tasks:
            for state in STATES:
                family.add_metric([_number(task), state], task["state"] == state)
        return family

    def _oldest(self) -> Iterator[Metric]:
        """The event itself, by topic: a message key may be personal data, so it is not here."""
        offsets = _gauge("oldest_event_offset", "Its offset.", "partition", "topic", "held_by")
        stamps = _gauge("oldest_event_timestamp_seconds", "Its time stamp.", "partition", "topic")
        for task in self.tasks:
            if (event := task["oldest"]) is not None:
                offsets.add_metric([_number(task), event["topic"], event["held_by"]], event["offset"])
                if event["at_ms"] is not None:
                    stamps.add_metric([_number(task), event["topic"]], event["at_ms"] / 1000)
        yield from (offsets, stamps)

    def _aborts(self) -> Metric:
        family = _counter("commit_aborts", "Transactions aborted, then sent again.", "partition", "reason")
        for task in self.tasks:
            for reason, count in {**dict.fromkeys(ABORTS, 0), **task["aborts"]}.items():
                family.add_metric([_number(task), reason], count)
        return family

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "exactly_once_commit_duration_seconds", "From choosing a commit's events to their release.",
            labels=["partition"],
        )  # fmt: skip
        for task in self.tasks:
            upto = zip(BOUNDS, accumulate(task["commits_in_bucket"]), strict=True)
            family.add_metric([_number(task)], list(upto), task["commit_seconds"])
        return family

    def _stages(self) -> Metric:
        family = _gauge("rebalance_stage_seconds", "Stages of the last rebalance.", "partition", "stage")
        for task in self.tasks:
            for stage, took_ms in task["stages_ms"].items():
                family.add_metric([_number(task), stage], took_ms / 1000)
        return family

    def _of_the_worker(self) -> Iterator[Metric]:
        worker = self.worker
        for kind, name, text in OF_THE_WORKER:
            family = kind(name, text)
            family.add_metric([], float(worker[name]))
            yield family
        up = _gauge("broker_up", "0 while the broker does not answer this worker.", "broker", "address")
        for one in worker["brokers"]:
            up.add_metric([str(one["id"]), one["address"]], one["up"])
        yield up
        failed = _counter("incarnations_failed", "Openings of tasks that ended in a failure.", "reason")
        for reason, count in {**dict.fromkeys(FAILURES, 0), **worker["failures"]}.items():
            failed.add_metric([reason], count)
        yield failed


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"exactly_once_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"exactly_once_{name}", text, labels=labels)


def _number(task: Status) -> str:
    return str(task["partition"])


def _gap_age_s(task: Status) -> float:
    return float(task["oldest"]["gap_s"]) if task["oldest"] else 0.0


def _last_commit_at_s(task: Status) -> float:
    return float(task["last_commit_at_ms"] or 0) / 1000


_of = itemgetter
Kind = Callable[..., GaugeMetricFamily | CounterMetricFamily]
OF_A_TASK: tuple[tuple[Kind, str, str, Callable[[Status], float]], ...] = (
    (_gauge, "recovered_records", "Changelog records that the last opening has read.", _of("recovered")),
    (_gauge, "records_to_recover", "How many it has to read.", _of("to_recover")),
    (_gauge, "waiting_units", "Events admitted, not committed yet.", _of("waiting_units")),
    (_gauge, "gap_age_seconds", "How long the oldest of them has kept others waiting.", _gap_age_s),
    (_gauge, "gap_alarm", "1 while that is longer than the layer's head_of_line_alarm_s.", _of("alarm")),
    (_counter, "commits", "Transactions committed.", _of("commits")),
    (_counter, "committed_units", "Events committed.", _of("committed_units")),
    (_counter, "committed_records", "Records committed, changelogs included.", _of("committed_records")),
    (_gauge, "last_commit_timestamp_seconds", "The last commit with events; 0: none.", _last_commit_at_s),
    (_gauge, "last_commit_units", "Its events.", _of("last_commit_units")),
    (_gauge, "last_commit_records", "Its records, changelogs included.", _of("last_commit_records")),
)
OF_THE_WORKER: tuple[tuple[Kind, str, str], ...] = (
    (_gauge, "partitions", "How many tasks there are, on all workers together."),
    (_gauge, "group_contact", "0 while the broker that coordinates the group does not answer."),
    (_gauge, "running_handlers", "Handlers that run now."),
    (_gauge, "held_bytes", "Bytes of events, sends, writes held in memory until their commit."),
    (_counter, "rebalances", "Assignments of partitions to this worker."),
    (_counter, "incarnations_opened", "Openings of tasks that went well."),
)
