"""A process whose lines can be waited for."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from processes import ROOT
from processes.process import Process

KEPT_LINES: Final = 400
"""Of each start, for whoever asks why."""
READS_ON_FOR_S: Final = 30.0


class HeardProcess(Process):
    """Its output goes line by line into `log_file`, to `told` and to who waits for it.

    `keeps`: how many of its last lines, since its start, can be asked for; None: all.
    """

    def __init__(
        self, name: str, command: Sequence[str], log_file: Path,
        environment: Mapping[str, str] | None = None, *, lock_fd: int | None = None,
        cwd: Path = ROOT, keeps: int | None = KEPT_LINES,
    ) -> None:  # fmt: skip
        super().__init__(name, command, log_file, environment, lock_fd=lock_fd, cwd=cwd)
        self.told: Callable[[str], None] = lambda line: None
        self._keeps = keeps
        self._reader: threading.Thread | None = None
        self._news = threading.Condition()
        self._lines: list[str] = []
        self._silent = True

    def wait(self, within_s: float) -> bool:
        """True once it has ended and its last line is read, False if it lives after `within_s`."""
        if not super().wait(within_s):
            return False
        if self._reader is not None:
            self._reader.join(READS_ON_FOR_S)
        return True

    def wait_line(self, pattern: str, within_s: float) -> str | None:
        """The first line since the start that matches; None if it ended or none came within `within_s`."""
        regex = re.compile(pattern)
        with self._news:
            self._news.wait_for(lambda: self._find(regex) or self._silent, within_s)
            return self._find(regex)

    def wait_lines(self, pattern: str, count: int, within_s: float) -> bool:
        """True once so many lines since the start match; False if it ended or that took too long."""
        with self._news:
            self._news.wait_for(lambda: self.count(pattern) >= count or self._silent, within_s)
            return self.count(pattern) >= count

    def lines(self, pattern: str = "") -> list[str]:
        """The kept lines since the start that match."""
        regex = re.compile(pattern)
        return [line for line in list(self._lines) if regex.search(line)]

    def count(self, pattern: str) -> int:
        """How many of them match."""
        return len(self.lines(pattern))

    def tail(self, lines: int = 25) -> str:
        """The last lines."""
        return "\n".join(list(self._lines)[-lines:])

    def _begin(self, mode: str) -> subprocess.Popen[bytes]:
        with self._news:
            self._lines, self._silent = [], False
        process = self._started(subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, args=(process, mode), daemon=True)
        self._reader.start()
        return process

    def _read(self, process: subprocess.Popen[bytes], mode: str) -> None:
        assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        with process.stdout, self.log_file.open(mode) as log:
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
            if self._keeps is not None:
                del self._lines[: -self._keeps]
            self._news.notify_all()

    def _find(self, regex: re.Pattern[str]) -> str | None:
        return next((line for line in self._lines if regex.search(line)), None)
