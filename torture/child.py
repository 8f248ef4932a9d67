"""A process of a run: its lines can be waited for, it ends when the conductor ends."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import broker
from broker import guarded

ROOT: Final = Path(broker.__file__).resolve().parent.parent
KEPT_LINES: Final = 400
"""Of each start, for whoever asks why."""


class Child:
    """A command of ours; its output goes line by line into `log_file`, to `told` and to who waits for it."""

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], log_file: Path, lock_fd: int
    ) -> None:
        self.name = name
        self.log_file = log_file
        self.told: Callable[[str], None] = lambda line: None
        self._command = list(command)
        self._environ = dict(environ)
        self._lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._news = threading.Condition()
        self._lines: list[str] = []
        self._silent = True

    @property
    def pid(self) -> int:
        """Process id of the last start, 0 before the first."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """True while it lives (a frozen one lives)."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Exit code of the last start; None while it lives."""
        return self._process.poll() if self._process is not None else None

    def launch(self, environ: Mapping[str, str] | None = None) -> None:
        """Start it; the guard ends it when this process ends, however that happens."""
        with self._news:
            self._lines, self._silent = [], False
        self._process = process = guarded.start(
            self._command, self._lock_fd, subprocess.PIPE, cwd=ROOT,
            environ=self._environ | dict(environ or {}),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def signal(self, signum: int) -> None:
        """Send a signal, if it lives."""
        if self._process is not None and self.running:
            self._process.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    def terminate(self, within_s: float) -> bool:
        """SIGTERM (a frozen one is woken); False if it had to be killed after `within_s`."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if self.wait(within_s):
            return True
        self.kill()
        return False

    def wait(self, within_s: float) -> bool:
        """True once it has ended and its last line is read, False if it lives after `within_s`."""
        if self._process is None:
            return True
        if guarded.ended(self._process, within_s, by_force=False) is None:
            return False
        if self._reader is not None:
            self._reader.join(5)
        return True

    def wait_line(self, pattern: str, within_s: float) -> str | None:
        """The first line since the start that matches; None if it ended or none came within `within_s`."""
        regex = re.compile(pattern)
        with self._news:
            self._news.wait_for(lambda: self._find(regex) or self._silent, within_s)
            return self._find(regex)

    def count(self, pattern: str) -> int:
        """How many of the last lines since the start match."""
        regex = re.compile(pattern)
        with self._news:
            return sum(bool(regex.search(line)) for line in self._lines)

    def tail(self, lines: int = 25) -> str:
        """The last lines."""
        with self._news:
            return "\n".join(self._lines[-lines:])

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        with process.stdout, self.log_file.open("ab") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                self._tell(line.decode(errors="replace").rstrip())
        with self._news:
            self._silent = True
            self._news.notify_all()

    def _tell(self, line: str) -> None:
        self.told(line)
        with self._news:
            self._lines.append(line)
            del self._lines[:-KEPT_LINES]
            self._news.notify_all()

    def _find(self, regex: re.Pattern[str]) -> str | None:
        return next((line for line in self._lines if regex.search(line)), None)
