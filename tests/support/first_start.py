"""Workers that start for the first time, at the same moment, where none of their topics exists."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from support.system import WorkerProcess
from support.until import until
from support.web_client import get

from processes import ROOT

PARTITIONS = 4


@contextmanager
def first_start(
    bootstrap: str, folder: Path, name: str, workers: int = 2, **environment: object
) -> Iterator[list[WorkerProcess]]:
    """Workers of one new app, all started at once; they end with the `with`."""
    variables = {
        "BILLING_APP_ID": name, "BILLING_TOPIC_PREFIX": f"{name}-",
        "BILLING_BROKER": ";".join(f"kafka://{one}" for one in bootstrap.split(",")),
        "BILLING_PARTITIONS": PARTITIONS, "BILLING_GATEWAY_URL": "http://127.0.0.1:9",
    } | environment  # fmt: skip
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("BILLING_")}
    env = inherited | {key: str(value) for key, value in variables.items()}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    made = [WorkerProcess(f"w{number + 1}", folder, env) for number in range(workers)]
    try:
        for worker in made:
            worker.start()
        yield made
    finally:
        for worker in made:
            worker.end()


def runs(worker: WorkerProcess) -> set[int] | None:
    """The partitions that a ready worker runs; None while it is not ready."""
    try:
        answer = get(worker.web_port, "/ready")
    except (OSError, HTTPException):
        return None
    found: dict[str, Any] = answer.json()
    return set(found["assigned"]) if 200 == answer.status else None


def wait_all_run(workers: list[WorkerProcess], within_s: float) -> float:
    """Seconds until each worker is ready with a share and all tasks run; none may end or be blocked."""
    began = time.monotonic()

    def settled() -> bool:
        for worker in workers:
            assert worker.running, f"{worker.name} ended: {worker.tail()}"
        shares = [runs(worker) for worker in workers]
        return all(shares) and set().union(*(share or () for share in shares)) == set(range(PARTITIONS))

    until(settled, "\n".join(f"{worker.name}: {worker.log_file}" for worker in workers), within_s)
    for worker in workers:
        log = worker.log_file.read_text(encoding="utf-8")
        assert "is stopped:" not in log, log
        assert "Traceback" not in log, log
    return time.monotonic() - began
