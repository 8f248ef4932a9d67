"""How long a worker takes to come back to its tables: from empty, from the state that a SIGKILL left."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.load import preload
from benchmarks.system import start_worker, wait_until
from processes.kernel import peak_bytes
from processes.process import Process
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import PAYMENTS, Settings

USERS = 2000
HANDLED_WITHIN_S = 900.0
RECOVERED_WITHIN_S = 600.0
RUNS = re.compile(r"task (?P<task>\d+) runs: .*recovered (?P<records>\d+) records")
ASSIGNED = "Executing _on_partitions_assigned"
PROGRESS = re.compile(r"task \d+ recovers: \d+ of \d+ records")


def recovery(settings: Settings, environ: Mapping[str, str], folder: Path, keys: int) -> dict[str, Any]:
    """Fill `payments` with so many keys, then time two starts: after SIGKILL, after losing the disk too.

    Times run from the assignment to the line with which the last task runs: how long the group waits for the
    session of the dead one before is a setting (BILLING_SESSION_TIMEOUT_S), `start` has it with the rest.
    """
    preload(settings, keys, USERS, seed=1, resent=0.0)
    worker, began = start_worker(environ, folder, 0), time.monotonic()
    try:
        log = CommittedLog(settings)
        places = [(settings.topic(PAYMENTS), p) for p in range(settings.partitions)]
        ends = log.ends(places)

        def handled() -> bool:
            return sum(log.lag(settings.app_id, ends).values()) == 0

        _wait(worker, handled, HANDLED_WITHIN_S, "the end of the backlog")
        handled_s = time.monotonic() - began
    finally:
        worker.kill()  # by its own pid: what a crash leaves is what is measured
    intact = _start(settings, environ, folder)
    shutil.rmtree(folder / "worker")
    empty = _start(settings, environ, folder)
    return {
        "keys": keys, "handled_per_s": round(keys / handled_s),
        **{f"after_sigkill_{name}": value for name, value in intact.items()},
        **{f"from_empty_{name}": value for name, value in empty.items()},
    }  # fmt: skip


def _start(settings: Settings, environ: Mapping[str, str], folder: Path) -> dict[str, float]:
    """Start a worker, wait until every task runs, SIGKILL it; what that took."""
    log_file = folder / "worker.log"
    known = log_file.stat().st_size
    began = time.monotonic()
    worker = start_worker(environ, folder, 0, "--loglevel=info")

    def said() -> str:
        with log_file.open("rb") as log:
            log.seek(known)
            return log.read().decode()

    def running() -> dict[str, int]:
        return {found["task"]: int(found["records"]) for found in RUNS.finditer(said())}

    try:
        _wait(worker, lambda: len(running()) == settings.partitions, RECOVERED_WITHIN_S, "every task")
        start_s, text = time.monotonic() - began, said()
        ran_at = [_seconds(line) for line in text.splitlines() if RUNS.search(line)]
        assigned_at = [_seconds(line) for line in text.splitlines() if ASSIGNED in line]
        return {
            "s": round(max(ran_at) - max(at for at in assigned_at if at < min(ran_at)), 2),
            "start_s": round(start_s, 2), "records": sum(running().values()),
            "progress_lines": len(PROGRESS.findall(text)), "peak_mb": peak_bytes(worker.pid) // 2**20,
        }  # fmt: skip
    finally:
        worker.kill()  # by its own pid: what a crash leaves is what is measured


def _seconds(line: str) -> float:
    """The time of a log line in seconds since the epoch."""
    return datetime.fromisoformat(line.split(" ", 1)[0]).timestamp()


def _wait(worker: Process, condition: Callable[[], bool], limit_s: float, what: str) -> None:
    wait_until(lambda: not worker.running or condition(), limit_s, what)
    if not worker.running:
        raise RuntimeError(f"the worker ended with code {worker.code} before {what}")
