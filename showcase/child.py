"""One process of the showcase."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import broker
from broker import guarded
from showcase.causes import how_it_ended
from showcase.errors import ShowcaseFailed
from showcase.folder import Folder

ROOT: Final = Path(broker.__file__).resolve().parent.parent
"""The checkout."""
STOP_WITHIN_S: Final = 20.0


class Child:
    """A command of ours, run with a log of its own; it ends when this process ends, however that happens."""

    def __init__(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str], folder: Folder
    ) -> None:
        self.name = name
        self.log_file = folder.logs / f"{name}.log"
        self._arguments = arguments
        self._environ = environ
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    @property
    def pid(self) -> int:
        """Process id, 0 before the first start; that of the command itself."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """True while it lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again); raises ShowcaseFailed where the command is not installed."""
        lock = self._folder.lock_fd
        self._log_begins = self._log_size()
        with self.log_file.open("wb" if self._process is None else "ab") as log:
            command = [console_script(), *self._arguments]
            self._process = guarded.start(command, lock, log, cwd=ROOT, environ=self._environ)

    def kill(self) -> int:
        """SIGKILL; returns the pid it had."""
        pid = self.pid
        if self._process is not None:
            self._process.kill()
            guarded.ended(self._process, STOP_WITHIN_S)
        return pid

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)

    def stopped(self) -> int:
        """Wait for the end that was asked for, at last by force; returns the exit code."""
        if self._process is None:
            return 0
        return guarded.ended(self._process, STOP_WITHIN_S) or 0

    def start_again(self) -> None:
        """Start it once more after its end, over the same data, on the same port."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self.start()

    def answers(self) -> bool:
        """True once it does its work."""
        return self.running

    def may_start(self) -> bool:
        """False while what it needs is not there."""
        return True

    def why(self) -> str:
        """One line on an end that nobody asked for."""
        code = self._process.poll() if self._process is not None else None
        return how_it_ended(self.name, code, self.log_file, self._log_begins)

    def said(self, text: str) -> bool:
        """True if its log holds this text since its last start."""
        try:
            return text.encode() in self.log_file.read_bytes()[self._log_begins :]
        except OSError:
            return False

    def _log_size(self) -> int:
        """Where the log of the next start begins: the first one begins the file anew."""
        return self.log_file.stat().st_size if self._process is not None and self.log_file.exists() else 0


def console_script() -> str:
    """The path of `streamsocial-billing` beside this Python."""
    path = Path(sys.executable).with_name("streamsocial-billing")
    if not path.exists():
        raise ShowcaseFailed(f"{path} is missing: run make install")
    return str(path)


def free_port(wanted: int = 0) -> int:
    """This port of the loopback, or any free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise ShowcaseFailed("no free port on 127.0.0.1")
