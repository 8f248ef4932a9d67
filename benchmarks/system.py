"""Workers of one benchmark."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from processes.process import Process

STOPS_WITHIN_S = 15.0


def start_worker(
    environ: Mapping[str, str], folder: Path, delay_ms: float | None, *options: str,
    web_port: int | None = None,
) -> Process:  # fmt: skip
    """A worker with the in-process gateway of that delay, or (None) with the simulator over HTTP.

    It serves HTTP where it is given a port.
    """
    module = ["streamsocial_billing"] if delay_ms is None else ["benchmarks.worker", str(delay_ms)]
    command = [sys.executable, "-m", *module, f"--datadir={folder / 'worker'}", "worker", *options]
    command.append("--without-web" if web_port is None else f"--web-port={web_port}")
    worker = Process("worker", command, folder / "worker.log", os.environ | dict(environ))
    worker.launch()
    return worker


def wait_until(condition: object, limit_s: float, what: str) -> None:
    """Ask every 20 ms.

    Raises:
        TimeoutError: naming what did not come.
    """
    assert callable(condition)  # noqa: S101
    ends = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come within {limit_s:.0f} s")
        time.sleep(0.02)
