"""A third party's server in a process of its own, which prints the port that it has taken."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from processes import ROOT
from processes.heard import HeardProcess

STARTS_WITHIN_S = 60


class AnnouncedServer:
    """One server; use it in a `with`. It prints "port N" once it serves there."""

    name: str

    def command(self) -> Sequence[str]:
        """What starts it."""
        raise NotImplementedError

    def folder(self) -> Path:
        """Where it runs."""
        return ROOT

    def __enter__(self) -> Self:
        self._process = HeardProcess(self.name, list(self.command()), Path(os.devnull), cwd=self.folder())
        self._process.launch()
        line = self._process.wait_line("^port ", STARTS_WITHIN_S)
        assert line is not None, self._process.tail()
        self.url = f"http://127.0.0.1:{int(line.split()[1])}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
