"""Processes of one benchmark: worker, gateway, with their CPU and memory."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """A child process in a session of its own; ended by its pid."""

    def __init__(self, command: list[str], environ: Mapping[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self.child = subprocess.Popen(  # noqa: S603 - our own modules
            command, env={**os.environ, **environ}, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def cpu_s(self) -> float:
        """CPU seconds so far, user with system."""
        text = Path(f"/proc/{self.child.pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def peak_mb(self) -> int:
        """Peak resident memory in MB."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024
        return 0

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 15 s."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self._log.close()


def start_worker(
    environ: Mapping[str, str], folder: Path, delay_ms: float | None, *options: str
) -> Process:  # fmt: skip
    """A worker with the in-process gateway of that delay, or (None) with the simulator over HTTP."""
    module = ["streamsocial_billing"] if delay_ms is None else ["benchmarks.worker", str(delay_ms)]
    command = [sys.executable, "-m", *module, f"--datadir={folder / 'worker'}", "worker", "--without-web"]
    command += options
    return Process(command, environ, folder / "worker.log")


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
