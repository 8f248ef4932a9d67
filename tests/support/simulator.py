"""Starts the gateway simulator as a process of its own, for tests that kill it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]


def simulator_command(ledger: Path, port: int = 0) -> list[str]:
    """The command line of a simulator on loopback (port 0: any free one)."""
    module = "streamsocial_billing.gateways.simulator"
    return [sys.executable, "-m", module, "--port", str(port), "--ledger", str(ledger)]


class SimulatorProcess:
    """One simulator over the ledger file; started again, it keeps its port. Use it in a `with`."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """True between start and stop."""
        return self._process is not None

    def start(self) -> None:
        """Return when it listens; raises RuntimeError with its stderr if it does not within 10 s."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        log = Path(f"{self.ledger}.log")  # a pipe that nobody reads stops the process when it is full
        with log.open("a") as stderr:
            self._process = process = subprocess.Popen(  # noqa: S603 - our own module
                simulator_command(self.ledger, self.port),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            )
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 10)
        line = process.stdout.readline() if ready else ""
        if " http://" not in line:
            process.kill()
            process.wait()
            raise RuntimeError(f"no simulator: {log.read_text()}")
        self.port = int(line.split("http://")[1].split()[0].rsplit(":", 1)[1])

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send the signal and wait; returns the exit code (negative: the signal)."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(signum)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode

    def kill(self) -> None:
        """SIGKILL."""
        self.stop(signal.SIGKILL)

    def signal(self, signum: int) -> None:
        """Send a signal to its own pid: SIGSTOP makes it hang, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(signum)

    def get(self, path: str) -> dict[str, object]:
        """The JSON object at this path."""
        return self._open(urllib.request.Request(self.url + path))  # noqa: S310 - loopback http

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """The answer to a JSON object at this path."""
        data = json.dumps(body).encode()
        return self._open(urllib.request.Request(self.url + path, data=data))  # noqa: S310

    def faults(self, **settings: float) -> dict[str, object]:
        """Replace the fault plan; without arguments all faults end."""
        return self.post("/_faults", settings)

    def _open(self, request: urllib.request.Request) -> dict[str, object]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    def __enter__(self) -> SimulatorProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop()
