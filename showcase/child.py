"""One process of the showcase."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from broker.ports import is_free, stable_ports
from processes.process import Process
from showcase.causes import how_it_ended
from showcase.errors import ShowcaseFailed
from showcase.folder import Folder

STOP_WITHIN_S: Final = 20.0


class Child(Process):
    """A command of ours, run with a log of its own; it ends when this process ends, however that happens."""

    def __init__(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str], folder: Folder
    ) -> None:
        super().__init__(name, [], folder.logs / f"{name}.log", environ)
        self._arguments = arguments
        self._folder = folder
        self._log_begins = 0

    def start(self) -> None:
        """Start it (again); raises ShowcaseFailed where the command is not installed."""
        self.command = [console_script(), *self._arguments]
        self.lock_fd = self._folder.lock_fd
        self._log_begins = self._log_size()
        self.launch(afresh=self.starts == 0)

    def stopped(self) -> int:
        """Wait for the end that was asked for, at last by force; returns the exit code."""
        if not self.wait(STOP_WITHIN_S):
            self.kill()
        return self.code or 0

    def start_again(self) -> None:
        """Start it once more after its end, over the same data, on the same port."""
        self.start()

    def answers(self) -> bool:
        """True once it does its work."""
        return self.running

    def may_start(self) -> bool:
        """False while what it needs is not there."""
        return True

    def why(self) -> str:
        """One line on an end that nobody asked for."""
        return how_it_ended(self.name, self.code, self.log_file, self._log_begins)

    def said(self, text: str) -> bool:
        """True if its log holds this text since its last start."""
        try:
            return text.encode() in self.log_file.read_bytes()[self._log_begins :]
        except OSError:
            return False

    def _log_size(self) -> int:
        """Where the log of the next start begins: the first one begins the file anew."""
        return self.log_file.stat().st_size if self.starts and self.log_file.exists() else 0


def console_script() -> str:
    """The path of `streamsocial-billing` beside this Python."""
    path = Path(sys.executable).with_name("streamsocial-billing")
    if not path.exists():
        raise ShowcaseFailed(f"{path} is missing: run make install")
    return str(path)


def free_port(wanted: int = 0) -> int:
    """This port of the loopback, or any free one where it is taken."""
    return wanted if wanted and is_free(wanted) else stable_ports(1)[0]
