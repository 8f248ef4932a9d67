"""Measure our worker alone: backlogs, HTTP, latency of an idle system, recovery, reconciliation."""

import argparse
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks.arrivals import rates
from benchmarks.load import payments, preload
from benchmarks.posts import posts
from benchmarks.reconciliation import reconciliation
from benchmarks.recovery import recovery
from benchmarks.system import STOPS_WITHIN_S, start_worker
from broker import LocalBroker
from faust_exactly_once import Cluster
from processes.kernel import cpu_s, peak_bytes
from processes.simulator import Simulator
from streamsocial_billing.intake.producer import PaymentProducer
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.settings import RESULTS, Settings

USERS = 2000


class Results:
    """A read_committed reader of charge-results with the arrival time of everything."""

    def __init__(self, settings: Settings) -> None:
        self._reader = Consumer({
            **settings.client_config(), "group.id": f"bench-{uuid.uuid4().hex}", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
        })  # fmt: skip
        topic = settings.topic(RESULTS)
        self._reader.assign([TopicPartition(topic, p, OFFSET_END) for p in range(settings.partitions)])
        self.first_charges = 0
        self.arrivals: list[tuple[float, int]] = []
        self.count = 0
        self._reader.consume(1, 2.0)  # the end is known once the first fetch is answered

    def read(self, timeout_s: float) -> list[dict[str, Any]]:
        """What arrived within the time."""
        messages = self._reader.consume(10_000, timeout_s)
        found = [json.loads(m.value() or b"{}") for m in messages if not m.error()]
        if found:
            self.count += len(found)
            self.arrivals.append((time.monotonic(), len(found)))
            self.first_charges += sum(r["status"] == "succeeded" and not r["replayed"] for r in found)
        return found

    def close(self) -> None:
        """Leave."""
        self._reader.close()


class Running:
    """CPU of some processes from the first charges on: the start of a worker is no part of a charge."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._charges = 0
        self._began_s: list[float] = []

    def look(self, charges: int) -> None:
        """Begin to count with the first charges."""
        if charges and not self._began_s:
            self._charges, self._began_s = charges, [cpu_s(pid) for pid in self._pids]

    def us_a_charge(self, charges: int) -> list[int]:
        """Microseconds a charge since then, of each process."""
        since = max(1, charges - self._charges)
        spent = zip(self._pids, self._began_s, strict=False)
        found = [round((cpu_s(pid) - began_s) / since * 1e6) for pid, began_s in spent]
        return found or [0] * len(self._pids)


@contextmanager
def fresh(bootstrap: str, folder: Path, gateway_url: str) -> Iterator[tuple[Settings, dict[str, str]]]:
    """Settings with topics of their own."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    environ = {
        "BILLING_BROKER": f"kafka://{bootstrap}", "BILLING_APP_ID": name, "BILLING_TOPIC_PREFIX": f"{name}.",
        "BILLING_GATEWAY_URL": gateway_url,
    }  # fmt: skip
    settings = Settings.from_environment({**environ})
    create_topics(settings, Cluster(settings.client_config(), 15))
    yield settings, environ


def drain(
    bootstrap: str, folder: Path, count: int, delay_ms: float | None, gateway: Simulator
) -> dict[str, Any]:
    """How fast one worker works off a backlog, and at what CPU; the simulator's, where it is called."""
    with fresh(bootstrap, folder, gateway.url) as (settings, environ):
        results = Results(settings)
        distinct = preload(settings, count, USERS, seed=int(time.time()))
        worker = start_worker(environ, folder, delay_ms)
        try:
            ends, running = time.monotonic() + 300, Running((worker.pid, gateway.pid))
            while results.count < count and time.monotonic() < ends and worker.running:
                results.read(0.05)
                running.look(results.first_charges)
            whole, half = rates(results.arrivals)
            worker_us, simulator_us = running.us_a_charge(results.first_charges)
            return {
                "results": results.count, "of": count, "charged": results.first_charges, "distinct": distinct,
                "charges_per_s": round(whole * distinct / count), "per_s": round(whole),
                "second_half_per_s": round(half),
                "worker_us_per_event": round(cpu_s(worker.pid) / count * 1e6),
                "running_worker_us_per_charge": worker_us, "running_simulator_us_per_charge": simulator_us,
                "peak_mb": peak_bytes(worker.pid) // 2**20,
            }  # fmt: skip
        finally:
            worker.terminate(STOPS_WITHIN_S)
            results.close()


def latency(bootstrap: str, folder: Path, count: int, gateway_url: str) -> dict[str, Any]:
    """How long one payment takes, idle system, from before its submit to the reader of its result."""
    with fresh(bootstrap, folder, gateway_url) as (settings, environ):
        worker = start_worker(environ, folder, None)
        results = Results(settings)
        took: list[float] = []
        try:
            with PaymentProducer(settings, folder) as intake:
                for event in payments(count + 10, 200, 0.0, seed=int(time.time())):
                    started = time.monotonic()
                    intake.submit([event])
                    ends = started + 30
                    while time.monotonic() < ends:
                        if any(r["payment_id"] == event.payment_id for r in results.read(0.002)):
                            took.append((time.monotonic() - started) * 1000)
                            break
                    time.sleep(0.05)
        finally:
            worker.terminate(STOPS_WITHIN_S)
            results.close()
        took = sorted(took[10:])  # the first ones warm up
        return {"samples": len(took), "of": count, "p50_ms": round(statistics.median(took), 1),
                "p95_ms": round(took[int(len(took) * 0.95)], 1), "max_ms": round(took[-1], 1)}  # fmt: skip


def post(bootstrap: str, folder: Path, gateway_url: str, broker_pids: Sequence[int]) -> dict[str, Any]:
    """`POST /payments` at fixed rates."""
    with fresh(bootstrap, folder, gateway_url) as (settings, environ):
        results = Results(settings)
        try:
            return posts(environ, folder, results, broker_pids)
        finally:
            results.close()


def with_topics(
    bootstrap: str, folder: Path, gateway_url: str,
    measure: Callable[[Settings, dict[str, str]], dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Measure on topics of its own."""
    with fresh(bootstrap, folder, gateway_url) as (settings, environ):
        return measure(settings, environ)


def run(chosen: list[str], count: int, keys: int, payments_count: int) -> dict[str, Any]:
    """Run the chosen measurements one after the other on one broker."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="billing-bench-")))
        bootstrap, broker_pids = os.environ.get("KAFKA"), list[int]()
        if not bootstrap:
            broker = stack.enter_context(LocalBroker(folder / "kafka", port=0, lasting=True))
            bootstrap, broker_pids = broker.bootstrap, [broker.pid]
        gateway = stack.enter_context(Simulator(folder / "ledger.sqlite"))
        url = gateway.url
        measurements: dict[str, Callable[[], dict[str, Any]]] = {
            "no delay": lambda: drain(bootstrap, folder, count, 0, gateway),
            "50 ms gateway": lambda: drain(bootstrap, folder, count, 50, gateway),
            "simulator over HTTP": lambda: drain(bootstrap, folder, count // 4, None, gateway),
            "posts": lambda: post(bootstrap, folder, url, broker_pids),
            "idle latency": lambda: latency(bootstrap, folder, 200, url),
            "recovery": lambda: with_topics(
                bootstrap, folder, url, lambda settings, environ: recovery(settings, environ, folder, keys)
            ),
            "reconciliation": lambda: with_topics(
                bootstrap, folder, url,
                lambda settings, environ: reconciliation(settings, environ, folder, payments_count),
            ),
        }
        for name, call in measurements.items():
            if not chosen or name in chosen:
                found[name] = call()
                Console().print(f"{name}: {found[name]}")
    return found


def main(words: Sequence[str]) -> None:
    """Run, then print tables; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks own", description=__doc__)
    parser.add_argument("only", nargs="*", help="names of measurements; none: all")
    parser.add_argument("-n", type=int, default=100_000, help="events of a backlog")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys of the table that is recovered")
    parser.add_argument("--payments", type=int, default=1_000_000, help="payments that are reconciled")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(words)
    found = run(args.only, args.n, args.keys, args.payments)
    table = Table("measurement", "figure", "value", title="one worker, one local broker")
    for name, figures in found.items():
        for figure, value in figures.items():
            table.add_row(name, figure, str(value))
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
