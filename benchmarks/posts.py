"""`POST /payments` at a fixed rate on one worker: how long an acknowledgement takes, whether all is charged.

The generator runs on the same cores; its CPU is printed. A payment counts as charged if it has exactly one
result that moved money; each that was acknowledged must have one.
"""

from __future__ import annotations

import math
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.load import payments
from benchmarks.open_loop import HOST, Answered, ask_all, request
from benchmarks.system import STOPS_WITHIN_S, start_worker, wait_until
from processes.kernel import cpu_s
from processes.loopback import ask
from processes.process import Process

USERS: Final = 2000
RATES: Final = 500, 1500
SECONDS: Final = 15.0
WARM_UP: Final = 200, 3.0
"""A rate, seconds: connections, caches, the producer of the intake are there then."""
READY_WITHIN_S: Final = 60.0
CHARGED_WITHIN_S: Final = 60.0
ACCEPTED: Final = 202


class Reader(Protocol):
    """Reads `charge-results` (`own.Results`)."""

    def read(self, timeout_s: float) -> list[dict[str, Any]]:
        """What arrived within the time."""


def posts(
    environ: Mapping[str, str], folder: Path, results: Reader, broker_pids: Sequence[int]
) -> dict[str, Any]:  # fmt: skip
    """One worker, one rate after the other; figures by rate."""
    found: dict[str, Any] = {}
    with _serving(environ, folder) as (worker, port):
        _load(port, *WARM_UP, seed=time.time_ns() // 1_000_000)
        for rate in RATES:
            before = [cpu_s(pid) for pid in (worker.pid, *broker_pids)]
            answered, ids = _load(port, rate, SECONDS, seed=time.time_ns() // 1_000_000)
            ended_ms = time.time_ns() // 1_000_000
            spent = [cpu_s(pid) - was for pid, was in zip((worker.pid, *broker_pids), before, strict=True)]
            acknowledged = {
                name for name, status in zip(ids, answered.statuses, strict=True) if status == ACCEPTED
            }
            found |= {f"{rate}/s {name}": value for name, value in {
                **latencies(answered), "worker_us_a_post": round(spent[0] / len(ids) * 1e6),
                "broker_us_a_post": round(sum(spent[1:]) / len(ids) * 1e6),
                **charged(_moved(results, acknowledged), acknowledged, ended_ms),
            }.items()}  # fmt: skip
    return found


def latencies(answered: Answered) -> dict[str, Any]:
    """How many were acknowledged, how fast; what the generator took."""
    sorted_ms, of = sorted(answered.latencies_ms), len(answered.latencies_ms)
    return {
        "acknowledged": answered.statuses.count(ACCEPTED), "of": of,
        "other_answers": {str(s): n for s, n in Counter(answered.statuses).items() if s != ACCEPTED},
        "acknowledged_a_second": round(answered.statuses.count(ACCEPTED) / answered.took_s),
        "p50_ms": round(sorted_ms[of // 2], 1), "p99_ms": round(sorted_ms[math.ceil(of * 0.99) - 1], 1),
        "max_ms": round(sorted_ms[-1], 1), "generator_us_a_post": round(answered.cpu_s / of * 1e6),
        "generator_cores": round(answered.cpu_s / answered.took_s, 2),
    }  # fmt: skip


def charged(
    moved: Sequence[Mapping[str, Any]], acknowledged: set[str], ended_ms: int
) -> dict[str, Any]:  # fmt: skip
    """What became of the acknowledged ones: `moved` are the results that moved money."""
    times = Counter(str(result["payment_id"]) for result in moved)
    by_the_end = {result["payment_id"] for result in moved if result["processed_at"] <= ended_ms}
    return {
        "charged": sum(name in times for name in acknowledged),
        "charged_by_the_end": len(acknowledged & by_the_end),
        "never": sum(name not in times for name in acknowledged),
        "twice": sum(count > 1 for count in times.values()),
    }  # fmt: skip


def _moved(results: Reader, acknowledged: set[str]) -> list[dict[str, Any]]:
    """Results that moved money, until each of the acknowledged has one, and a second longer."""
    moved, missing, ends = list[dict[str, Any]](), set(acknowledged), time.monotonic() + CHARGED_WITHIN_S
    while time.monotonic() < ends:
        if not missing:
            ends = min(ends, time.monotonic() + 1.0)
        for result in results.read(0.2):
            if result["status"] == "succeeded" and not result["replayed"]:
                moved.append(result)
                missing.discard(result["payment_id"])
    return moved


def _load(port: int, rate: int, seconds: float, seed: int) -> tuple[Answered, list[str]]:
    events = list(payments(round(rate * seconds), USERS, 0.0, seed))
    bodies = [request("/payments", event.payment_id, event.to_bytes()) for event in events]
    return ask_all(port, bodies, rate), [event.payment_id for event in events]


@contextmanager
def _serving(environ: Mapping[str, str], folder: Path) -> Iterator[tuple[Process, int]]:
    """A worker with an in-process gateway that is ready, its port."""
    with socket.create_server((HOST, 0)) as free:
        port = int(free.getsockname()[1])
    worker = start_worker(environ, folder, 0, web_port=port)

    def ready() -> bool:
        with suppress(OSError):
            ask(f"http://{HOST}:{port}/ready")
            return True
        return False

    try:
        wait_until(ready, READY_WITHIN_S, "a worker that is ready")
        yield worker, port
    finally:
        worker.terminate(STOPS_WITHIN_S)
