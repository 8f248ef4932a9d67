"""Starts stripe-mock (Go, MIT, Stripe's own) on loopback: it checks requests by Stripe's OpenAPI document."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from support.go_program import go_program
from support.system import free_port

from processes import ROOT
from processes.heard import HeardProcess

STARTS_WITHIN_S = 60
VERSION = "v0.203.0"
MODULE = "github.com/stripe/stripe-mock"
CACHE = ROOT / ".servers" / f"stripe-mock-{VERSION}"


def install() -> Path:
    """The program, built once; skips (in CI: fails) where go is missing."""
    without_go = f"stripe-mock {VERSION} needs go: the shapes of requests to Stripe are not tested"
    return go_program(CACHE / "stripe-mock", f"{MODULE}@{VERSION}", without_go)


class StripeMock:
    """One server; `answered` are the requests that it had (`POST /v1/charges`) with its answers' statuses."""

    def __enter__(self) -> StripeMock:
        port, unused = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.answered: list[tuple[str, int]] = []
        self._news = threading.Condition()
        # without an address for HTTPS it would listen for that on every interface
        command = [
            str(install()), "-http-addr", f"127.0.0.1:{port}", "-https-addr", f"127.0.0.1:{unused}",
        ]  # fmt: skip
        self._process = HeardProcess("stripe-mock", command, Path(os.devnull))
        self._process.told = self._heard
        self._process.launch()
        assert self._process.wait_line("Listening for HTTPS", STARTS_WITHIN_S), self._process.tail()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()

    def wait(self, count: int, within_s: float = 60.0) -> set[tuple[str, int]]:
        """The requests with their statuses, once there are so many: the log is behind the answer."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.answered) >= count, within_s), self.answered
        return set(self.answered)

    def _heard(self, line: str) -> None:
        if line.startswith("Request: "):
            self._request = line.removeprefix("Request: ").strip()
        elif line.startswith("Response: "):
            with self._news:
                self.answered.append((self._request, int(line.rpartition("status=")[2])))
                self._news.notify_all()
