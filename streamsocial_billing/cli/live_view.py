"""Shows something that goes on: drawn anew in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveView:
    """For a `with`. `draw_every_s` in a terminal, `line_every_s` elsewhere: seconds between two."""

    def __init__(self, console: Console, *, draw_every_s: float, line_every_s: float) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._pause_s = draw_every_s if self._live is not None else line_every_s
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True, style=style)

    def show(
        self, picture: Callable[[], RenderableType], line: Callable[[], str], *, now: bool = False,
        style: str | None = None,
    ) -> None:  # fmt: skip
        """Draw the picture, or write the line, unless that was done a moment ago."""
        if not now and time.monotonic() < self._next:
            return
        if self._live is not None:
            self._live.update(picture(), refresh=True)
        else:
            self.say(line(), style)
        self._next = time.monotonic() + self._pause_s
