"""Streams payments into the `submit` command."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from processes import ROOT
from showcase.causes import how_it_ended
from showcase.child import STOP_WITHIN_S, console_script
from showcase.errors import ShowcaseFailed
from showcase.folder import Folder

SPREAD_OVER_S: Final = 10.0
"""How long the stream lasts, so that the SIGKILL half-way meets a system at work."""


class Feed:
    """One `submit` that reads a pipe; `push` writes what is due and never blocks. Use it in a `with`."""

    def __init__(self, lines: list[bytes], environ: Mapping[str, str], folder: Folder) -> None:
        self.sent = 0
        self._lines = lines
        self._waiting = b""
        self._log: Path = folder.logs / "submit.log"
        self._started = time.monotonic()
        with self._log.open("wb") as log:
            # no guard: at our end the pipe ends, so does submit
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [console_script(), f"--datadir={folder.path / 'intake'}", "submit", "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=dict(environ),
                start_new_session=True,
            )
        assert self._process.stdin is not None  # noqa: S101 - for mypy: it is a pipe
        self._pipe = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)

    def push(self) -> None:
        """Write what is due by now, at last close the pipe; raises ShowcaseFailed if submit failed."""
        code = self._process.poll()
        if code or (code == 0 and not self._pipe.closed):
            raise ShowcaseFailed(how_it_ended("submit", code, self._log, 0))
        if self._pipe.closed:
            return
        elapsed = time.monotonic() - self._started
        due = min(len(self._lines), int(len(self._lines) * elapsed / SPREAD_OVER_S) + 1)
        self._waiting += b"".join(self._lines[self.sent : due])
        self.sent = due
        try:
            written = os.write(self._pipe.fileno(), self._waiting) if self._waiting else 0
        except BlockingIOError:
            return
        except BrokenPipeError:
            return  # it has just ended: the next look tells how
        self._waiting = self._waiting[written:]
        if self.sent == len(self._lines) and not self._waiting:
            self._pipe.close()

    def finished(self) -> int:
        """The exit code of submit, which has been given everything."""
        try:
            return self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        if self._process.poll() is None:
            self._process.terminate()
            self.finished()
