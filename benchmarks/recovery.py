"""How long a worker takes to come back to its tables: from empty, from the state that a SIGKILL left."""

import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.load import preload
from benchmarks.system import Process, start_worker, wait_until
from streamsocial_billing.committed import CommittedLog
from streamsocial_billing.settings import PAYMENTS, Settings

USERS = 2000
HANDLED_WITHIN_S = 900.0
RECOVERED_WITHIN_S = 600.0
RUNS = re.compile(r"\[(?P<at>[^\]]+?)\].*task (?P<task>\d+) runs: .*recovered (?P<records>\d+) records")
PROGRESS = re.compile(r"task \d+ recovers: \d+ of \d+ records")


def recovery(settings: Settings, environ: Mapping[str, str], folder: Path, keys: int) -> dict[str, Any]:
    """Fill `payments` with so many keys, then time two starts: after SIGKILL, after losing the disk too.

    Times run from the start of the process to the line with which its last task runs.
    """
    preload(settings, keys, USERS, seed=1, resent=0.0)
    worker = start_worker(environ, folder, 0)
    try:
        log = CommittedLog(settings)
        places = [(settings.topic(PAYMENTS), p) for p in range(settings.partitions)]
        ends = log.ends(places)

        def handled() -> bool:
            return sum(log.lag(settings.app_id, ends).values()) == 0

        _wait(worker, handled, HANDLED_WITHIN_S, "the end of the backlog")
    finally:
        _kill(worker)
    intact_s, intact_records, _, _ = _start(settings, environ, folder)
    shutil.rmtree(folder / "worker")
    empty_s, empty_records, progress, peak_mb = _start(settings, environ, folder)
    return {
        "keys": keys, "after_sigkill_s": round(intact_s, 2), "after_sigkill_records": intact_records,
        "from_empty_s": round(empty_s, 2), "from_empty_records": empty_records,
        "records_per_s": round(empty_records / empty_s), "progress_lines": progress, "peak_mb": peak_mb,
    }  # fmt: skip


def _start(settings: Settings, environ: Mapping[str, str], folder: Path) -> tuple[float, int, int, int]:
    """Seconds until every task runs, records read for that, progress lines, peak memory; then SIGKILL."""
    log_file = folder / "worker.log"
    known = log_file.stat().st_size
    began = time.monotonic()
    worker = start_worker(environ, folder, 0)

    def said() -> str:
        with log_file.open("rb") as log:
            log.seek(known)
            return log.read().decode()

    def running() -> dict[str, int]:
        return {found["task"]: int(found["records"]) for found in RUNS.finditer(said())}

    try:
        _wait(worker, lambda: len(running()) == settings.partitions, RECOVERED_WITHIN_S, "every task")
        took_s = time.monotonic() - began
        return took_s, sum(running().values()), len(PROGRESS.findall(said())), worker.peak_mb()
    finally:
        _kill(worker)


def _wait(worker: Process, condition: Callable[[], bool], limit_s: float, what: str) -> None:
    wait_until(lambda: worker.child.poll() is not None or condition(), limit_s, what)
    if worker.child.poll() is not None:
        raise RuntimeError(f"the worker ended with code {worker.child.poll()} before {what}")


def _kill(worker: Process) -> None:
    """SIGKILL by its own pid: what a crash leaves is what is measured."""
    if worker.child.poll() is None:
        worker.child.send_signal(signal.SIGKILL)
    worker.stop()
