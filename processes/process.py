"""A process of ours from its start to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from processes import ROOT, guarded

ENDS_AFTER_KILL_S = 60.0
FROZEN_WITHIN_S = 30.0
"""From SIGSTOP to the last thread that runs, on a machine that does much else."""


class Process:
    """A command whose process ends when this one ends, however that happens; its output goes into `log_file`.

    It can be started again after its end. `command` and `environment` count from the next start on; without
    an environment it has ours. It inherits the lock `lock_fd`, which then lasts as long as it does.
    """

    def __init__(
        self, name: str, command: Sequence[str], log_file: Path,
        environment: Mapping[str, str] | None = None, *, lock_fd: int | None = None, cwd: Path = ROOT,
    ) -> None:  # fmt: skip
        self.name = name
        self.command = list(command)
        self.log_file = log_file
        self.environment = None if environment is None else dict(environment)
        self.lock_fd = lock_fd
        self.starts = 0
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the last start, that of the command itself; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """True while it lives (a paused one lives)."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Exit code of the last start, below 0: the signal that killed it; None while it lives."""
        return self._process.poll() if self._process is not None else None

    def launch(self, *, afresh: bool = False) -> None:
        """Start it; with `afresh` its log begins anew. Raises RuntimeError if it lives."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already, as {self.pid}")
        self.wait(0)  # nobody needs to have waited for the end of the one before: what it held is let go
        self.starts += 1
        self._process = self._begin("wb" if afresh else "ab")

    def signal(self, signum: int) -> None:
        """Send a signal to its own pid, if it lives."""
        if self._process is not None and self.running:
            self._process.send_signal(signum)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): its connections stay open; from the return on it does nothing."""
        self.signal(signal.SIGSTOP)
        limit = time.monotonic() + FROZEN_WITHIN_S
        while self.running and not self._has_stopped() and time.monotonic() < limit:
            time.sleep(0.002)

    def resume(self) -> None:
        """Let a paused one go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """SIGTERM without waiting; a paused one is woken for it."""
        self.signal(signal.SIGTERM)
        self.resume()

    def terminate(self, within_s: float) -> bool:
        """SIGTERM; False if it had to be killed after `within_s`."""
        self.ask_to_stop()
        if self.wait(within_s):
            return True
        self.kill()
        return False

    def kill(self) -> int:
        """End it as a crash would (SIGKILL); returns the pid that it had."""
        self.signal(signal.SIGKILL)
        self.wait(ENDS_AFTER_KILL_S)
        return self.pid

    def wait(self, within_s: float) -> bool:
        """True once it has ended and all that it wrote is in its log, False if it lives after `within_s`."""
        return self._process is None or guarded.ended(self._process, within_s) is not None

    def _has_stopped(self) -> bool:
        """True once each thread stands still: the others run on until one has taken the signal."""
        with suppress(ChildProcessError):  # its end was collected meanwhile
            return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    def _begin(self, mode: str) -> subprocess.Popen[bytes]:
        with self.log_file.open(mode) as log:
            return self._started(log)

    def _started(self, output: int | IO[Any]) -> subprocess.Popen[bytes]:
        return guarded.start(
            self.command, output, lock_fd=self.lock_fd, cwd=self._cwd, environment=self.environment
        )
