"""The worker processes of a run, with the intake."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from processes import kernel
from processes.heard import HeardProcess
from torture.generator import AMID
from torture.worker import Spec

STOP_WITHIN_S: Final = 25.0
RUNS: Final = r"task \d+ runs"
TABLES: Final = Path("v1") / "tables"


class Worker(HeardProcess):
    """One worker over its own data folder.

    `wanted`: it shall run when no fault holds it. `lock`: held by the fault that has the process.
    `added_topic`: its release has the added source topic.
    """

    def __init__(
        self, name: str, folder: Path, environ: Mapping[str, str], options: Mapping[str, Any], lock_fd: int,
        module: str = "torture.worker", mutant: str = "",
    ) -> None:  # fmt: skip
        self.datadir = folder / name
        self.orders = folder / f"{name}.orders"
        self.wanted = False
        self.added_topic = False
        self.frozen = False
        self.lock = threading.Lock()
        self._options = options
        self._mutant = mutant
        command = [
            sys.executable, "-m", module, f"--datadir={self.datadir}", "worker", "--without-web",
            "--loglevel=info",
        ]  # fmt: skip
        super().__init__(name, command, folder / f"{name}.log", lock_fd=lock_fd)
        self._environ = dict(environ)

    @property
    def tables(self) -> Path:
        """Where its databases lie."""
        return self.datadir / TABLES

    def start(self, clock_ahead_s: float = 0.0) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        self.withdraw()
        self.frozen = False
        spec = Spec(
            str(self.orders), self._options, self.added_topic, clock_ahead_s, mutant=self._mutant
        )
        self.environment = self._environ | spec.environment()
        self.launch()

    def stop(self) -> bool:
        """SIGTERM; False if it had to be killed."""
        return self.terminate(STOP_WITHIN_S)

    def missing(self) -> bool:
        """It should run, but does not."""
        return self.wanted and not self.running

    def settle(self) -> None:
        """Run if that is wanted, else not."""
        if self.wanted:
            self.start()
        else:
            self.stop()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True
        self.pause()

    def wake(self) -> None:
        """SIGCONT."""
        self.resume()
        self.frozen = False

    def order(self, sent: signal.Signals, point: str, times: int) -> None:
        """It shall signal itself at its N-th passing of a point."""
        new = self.orders.with_suffix(".new")
        new.write_text(f"{sent.name} {point} {times}")
        new.replace(self.orders)

    def withdraw(self) -> None:
        """Take back what was not reached."""
        self.orders.unlink(missing_ok=True)

    def wait_runs(self, within_s: float) -> bool:
        """True once it runs a task, since its last start."""
        return self.wait_line(RUNS, within_s) is not None

    def memory_mb(self) -> int:
        """Resident memory now; 0 if it does not run."""
        return kernel.resident_bytes(self.pid) // (1024 * 1024)


class Intake(HeardProcess):
    """The generator in a process of its own, which is killed now and then."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], lock_fd: int, seed: int, payments: int
    ) -> None:
        command = [sys.executable, "-m", "torture.generator", str(folder), str(seed), str(payments)]
        super().__init__("intake", command, folder / "intake.log", environ, lock_fd=lock_fd)
        self.lock = threading.Lock()
        self._allow = folder / "intake.allow"
        self._amid = folder / "intake.amid"

    @property
    def done(self) -> bool:
        """True once every payment is appended."""
        return self.code == 0

    def allow(self, payments: int) -> None:
        """So many payments may be sent, from the first on."""
        new = self._allow.with_suffix(".new")
        new.write_text(str(payments))
        os.replace(new, self._allow)

    def stop_amid(self, within_s: float) -> bool:
        """True once it stands between the last record of a transaction and its commit."""
        self._amid.touch()
        found = self.wait_line(AMID, within_s) is not None
        self._amid.unlink(missing_ok=True)
        return found
