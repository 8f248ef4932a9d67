"""One run: a peer works off a backlog or answers a steady load; figures and books."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.arrivals import rates
from benchmarks.comparison.offered import Load, Sender
from benchmarks.comparison.outputs import Outputs, books, changelog
from benchmarks.comparison.peers import PARTITIONS, STOPS_WITHIN_S, Job, processes
from benchmarks.comparison.plan import OURS, Configuration
from benchmarks.comparison.records import Run
from faust_exactly_once import Cluster
from processes.kernel import cpu_s, peak_bytes
from processes.process import Process
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.settings import METRICS, PAYMENTS, RESULTS

GIVES_UP_AFTER_S: Final = 420.0
STALLS_AFTER_S: Final = 100.0
DEAD_AFTER_S: Final = 5.0
"""What a process that has ended wrote before may still arrive."""
RESTS_S: Final = 3.0
LATE_RESULTS_S: Final = 60.0
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """Where runs take place. `broker_pid`: 0 where the broker is not ours. `folder`: for state and logs."""

    bootstrap: str
    broker_pid: int
    folder: Path
    rate: int
    seconds: int


class Spent:
    """CPU seconds from a moment on, of the peer and of the broker; of the peer also since its first results.

    A start costs a JVM seconds, which a short backlog makes a large part of each payment.
    """

    def __init__(self, running: Sequence[Process], stage: Stage) -> None:
        self._pids = [process.pid for process in running]
        self._broker = stage.broker_pid
        self._began = self._now()
        self._first: tuple[int, float] | None = None

    def came(self, results: int) -> None:
        """So many results are there; the first time counts."""
        if self._first is None and results:
            self._first = (results, self._now()[0])

    def figures(self, payments: int) -> dict[str, float]:
        """In all, and for each payment."""
        peer, broker, bench = (now - then for now, then in zip(self._now(), self._began, strict=True))
        found = {"cpu_s": peer, "cpu_us": peer / payments * 1e6, "bench_cpu_s": bench}
        if self._broker:
            found |= {"broker_cpu_s": broker, "broker_cpu_us": broker / payments * 1e6}
        if self._first is not None and self._first[0] < payments:
            results, until_then = self._first
            found["running_cpu_us"] = (self._now()[0] - until_then) / (payments - results) * 1e6
        return {name: round(value, 2) for name, value in found.items()}

    def _now(self) -> tuple[float, float, float]:
        return sum(map(cpu_s, self._pids)), cpu_s(self._broker), time.process_time()


def measure(configuration: Configuration, count: int, number: int, stage: Stage) -> Run:
    """Run it on topics of its own, in round `number`; what it found, also if it failed."""
    suffix = time.strftime("%H%M%S") + uuid.uuid4().hex[:4]
    job = Job(configuration, stage.bootstrap, suffix, stage.folder / "state" / suffix)
    log = stage.folder / "logs" / f"{number}-{suffix}-{configuration.peer}"
    running = processes(job, log)
    _create_topics(job)
    load = Load(SEED, ours=configuration.peer == OURS)
    _backlog(job, load, count)
    load_average = os.getloadavg()[0]
    outputs = Outputs(job)
    try:
        job.state.mkdir(parents=True)
        for process in running:
            process.launch()
        figures, trouble = _figures(job, outputs, load, running, stage)
        outputs.settle()
        figures["peak_mb"] = round(sum(peak_bytes(process.pid) for process in running) / 2**20)
    finally:
        _stop(running)
        outputs.close()
    counted = books(load, outputs.results, outputs.metrics, changelog(job))
    _clean(job)
    return Run(
        configuration=configuration.name, round=number, payments=count, figures=figures, books=counted,
        trouble=trouble, log=str(log), load_average=round(load_average, 1),
    )  # fmt: skip


def _figures(
    job: Job, outputs: Outputs, load: Load, running: Sequence[Process], stage: Stage
) -> tuple[dict[str, float], str | None]:
    """The figures of the backlog, then those of the steady load in their place; why it ended early."""
    began, spent, count = time.time(), Spent(running, stage), load.sent
    trouble = _until_done(outputs, count, running, spent)
    drained = spent.figures(count) | _speed(outputs.arrivals, began)
    if job.configuration.kind == "drain" or trouble:
        return drained, trouble
    time.sleep(RESTS_S)
    return {f"warm_up_{name}": value for name, value in drained.items()} | _steady(
        job, outputs, load, running, stage
    ), None


def _until_done(outputs: Outputs, count: int, running: Sequence[Process], spent: Spent) -> str | None:
    """Read until all is there; None, or why it will not be."""
    began = progress = time.time()
    while not outputs.has(count):
        now = time.time()
        if outputs.read(20_000, 0.02):
            progress = now
            spent.came(len(outputs.results))
        got = f"after {len(outputs.results)} of {count} results, {len(outputs.metrics)} metrics"
        dead = [process for process in running if not process.running]
        if dead and now - progress > DEAD_AFTER_S:
            return f"{dead[0].name} ended with code {dead[0].code} {got}"
        if now - began > GIVES_UP_AFTER_S or now - progress > STALLS_AFTER_S:
            return f"gave up {now - began:.0f} s {got}"
    return None


def _speed(arrivals: Sequence[tuple[float, int]], began: float) -> dict[str, float]:
    if not arrivals:
        return {}
    whole, half = rates(arrivals)
    measured = {"results_per_s": round(whole), "second_half_per_s": round(half)}
    return {name: rate for name, rate in measured.items() if rate} | {
        "first_after_s": round(arrivals[0][0] - began, 2), "whole_s": round(arrivals[-1][0] - began, 2),
    }  # fmt: skip


def _steady(
    job: Job, outputs: Outputs, load: Load, running: Sequence[Process], stage: Stage
) -> dict[str, float]:
    """Latency from the scheduled moment of each send to the arrival of its result; CPU meanwhile."""
    total = stage.rate * stage.seconds
    due, ends = load.sent + total, time.time() + stage.seconds + LATE_RESULTS_S
    offer, spent = Offer(job, load, stage.rate, total), Spent(running, stage)
    took: list[float] = []
    offer.start()
    while not outputs.has(due) and time.time() < ends:
        result = outputs.read_one(0.2)
        now = time.time()
        sent_at = offer.sent_at(json.loads(result)["payment_id"]) if result is not None else None
        if sent_at is not None:
            took.append((now - sent_at) * 1000)
    offer.join()
    return percentiles(took) | spent.figures(total) | {"sender_late_ms": round(offer.latest_s * 1000, 1)}


def percentiles(took_ms: Sequence[float]) -> dict[str, float]:
    """Of the latencies; nothing of none."""
    found = sorted(took_ms)
    if not found:
        return {}
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {"samples": len(found)} | {
        name: round(found[min(len(found) - 1, int(len(found) * share))], 1) for name, share in shares.items()
    }


class Offer(threading.Thread):
    """Sends at a steady rate whatever the peer does: a sender that is late counts against the peer, too."""

    def __init__(self, job: Job, load: Load, rate: int, total: int) -> None:
        super().__init__(daemon=True)
        load.forget()  # what is sent again is of this phase, so each result belongs to a send of this phase
        self._load, self._rate, self._total = load, rate, total
        self._sender = Sender(job.bootstrap, job.topic(PAYMENTS), linger_ms=0)
        self._sent_at: dict[str, deque[float]] = defaultdict(deque)
        self.latest_s = 0.0

    def sent_at(self, payment_id: str) -> float | None:
        """When the send was due that the next result of this payment answers; None for one too many."""
        due = self._sent_at[payment_id]
        return due.popleft() if due else None

    def run(self) -> None:
        """Send all."""
        start = time.time() + 0.2
        for number in range(self._total):
            at = start + number / self._rate
            early = at - time.time()
            if early > 0:
                time.sleep(early)
            self.latest_s = max(self.latest_s, -early)
            payment = self._load.next() | {"requested_at": int(at * 1000)}
            self._sent_at[payment["payment_id"]].append(at)
            self._sender.send(payment)
        self._sender.flush()


def _create_topics(job: Job) -> None:
    if job.configuration.peer == OURS:
        settings = job.settings()  # append time on payments, all the topics that our worker wants
        create_topics(settings, Cluster(settings.client_config(), 15))
        return
    admin = AdminClient({"bootstrap.servers": job.bootstrap})
    names = [job.topic(name) for name in (PAYMENTS, RESULTS, METRICS)]
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        made.result()


def _backlog(job: Job, load: Load, count: int) -> None:
    sender = Sender(job.bootstrap, job.topic(PAYMENTS), linger_ms=20)
    for _ in range(count):
        sender.send(load.next())
    sender.flush()


def _stop(running: Sequence[Process]) -> None:
    for process in running:
        process.ask_to_stop()
    for process in running:
        process.terminate(STOPS_WITHIN_S)


def _clean(job: Job) -> None:
    """Remove the topics and the state of a run."""
    admin = AdminClient({"bootstrap.servers": job.bootstrap})
    names = [name for name in admin.list_topics(timeout=10).topics if job.suffix in name]
    for gone in admin.delete_topics(names).values():
        gone.exception(10)
    shutil.rmtree(job.state, ignore_errors=True)
