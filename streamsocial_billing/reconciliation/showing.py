"""Shows how far a run is: a bar in a terminal, nothing elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Showing(Protocol):
    """Told of each stage, then of how far it is."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins; `total` where it is known."""

    def tick(self, done: int) -> None:
        """So much of the stage is done."""


class Quiet:
    """Shows nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Nothing."""

    def tick(self, done: int) -> None:
        """Nothing."""


class Bars:
    """A line with a bar for each stage; for a `with`."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = None if not console.is_terminal else self._progress.add_task("starting", total=None)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        """The line before is full, a new one begins."""
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=1)
            self._task = self._progress.add_task(name, total=total)

    def tick(self, done: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done)
