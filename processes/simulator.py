"""The gateway simulator as a process of its own, which can be killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from processes import ROOT
from processes.heard import HeardProcess
from processes.loopback import ask

MODULE: Final = "streamsocial_billing.gateways.simulator"
LISTENS_WITHIN_S: Final = 60.0
"""On a machine that does much else; a quiet one needs less than a second."""
STOPS_WITHIN_S: Final = 30.0
ANSWERS_WITHIN_S: Final = 60.0


def simulator_command(ledger: Path, port: int = 0) -> list[str]:
    """The command line of a simulator on loopback (port 0: any free one)."""
    return [sys.executable, "-m", MODULE, "--port", str(port), "--ledger", str(ledger)]


class Simulator(HeardProcess):
    """One simulator over the ledger file; started again, it keeps its port. It can be used in a `with`.

    `port`: 0 takes any free one, which a connection may take while the simulator is down.
    """

    def __init__(
        self, ledger: Path, environment: Mapping[str, str] | None = None, *, log_file: Path | None = None,
        lock_fd: int | None = None, port: int = 0,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.port = port
        inherited = os.environ if environment is None else environment
        super().__init__(
            "gateway", [], log_file or Path(f"{ledger}.log"), {**inherited, "PYTHONPATH": str(ROOT)},
            lock_fd=lock_fd,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, within_s: float = LISTENS_WITHIN_S) -> None:
        """Return once it listens; raises RuntimeError with what it said."""
        self.command = simulator_command(self.ledger, self.port)
        self.launch()
        line = self.wait_line(r" http://", within_s)
        if line is None:
            self.kill()
            raise RuntimeError(f"no simulator: {self.tail()}")
        self.port = int(line.split("http://")[1].split()[0].rsplit(":", 1)[1])

    def stop(self) -> int:
        """Ask it to stop; its exit code. Raises RuntimeError if it had to be killed."""
        if not self.terminate(STOPS_WITHIN_S):
            raise RuntimeError(f"the simulator did not stop: {self.tail()}")
        return self.code or 0

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at this path."""
        answer: dict[str, Any] = ask(self.url + path, within_s=ANSWERS_WITHIN_S)
        return answer

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """The answer to a JSON object at this path."""
        answer: dict[str, Any] = ask(self.url + path, dict(body), within_s=ANSWERS_WITHIN_S)
        return answer

    def faults(self, **plan: float) -> dict[str, Any]:
        """Replace the fault plan; without arguments it behaves."""
        return self.post("/_faults", plan)

    def stats(self) -> dict[str, Any]:
        """Its counts."""
        return self.get("/_stats")

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop()
        self.kill()  # lets go of one that has ended by itself
