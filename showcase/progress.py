"""Shows a run while it goes on."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

import orjson
from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from showcase.system import System
from streamsocial_billing.cli.live_view import LiveView

DRAW_EVERY_S: Final = 0.15
LINE_EVERY_S: Final = 2.0
"""Where the output is no terminal."""
RATE_OVER_S: Final = 2.0


@dataclass
class Tally:
    """What was seen so far: of the payments on their way in, of the committed results."""

    events: int
    sent: int = 0
    results: int = 0
    charged: int = 0
    replayed: int = 0
    open: set[str] = field(default_factory=set)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, value: bytes) -> None:
        """Count a charge result: one that settles an earlier one is no further answer to an event."""
        result = orjson.loads(value)
        payment = f"{result['user_id']}/{result['payment_id']}"
        self.results += not result["resolves"]
        self.replayed += result["replayed"]
        self.charged += result["status"] == "succeeded" and not result["replayed"]
        if result["resolves"]:
            self.open.discard(payment)
        elif result["status"] == "unknown" and not result["replayed"]:
            self.open.add(payment)

    @property
    def answered(self) -> bool:
        """True once every event has its result, be it an open one."""
        return self.results >= self.events

    @property
    def done(self) -> bool:
        """True once every event has its result, none of them open."""
        return self.answered and not self.open

    def rate(self) -> float:
        """Results a second over the last RATE_OVER_S seconds."""
        now = time.monotonic()
        self._recent.append((now, self.results))
        while len(self._recent) > 2 and now - self._recent[0][0] > RATE_OVER_S:
            self._recent.popleft()
        seconds = now - self._recent[0][0]
        return (self.results - self._recent[0][1]) / seconds if seconds > 0 else 0.0


class Progress(LiveView):
    """What is seen of a run, drawn by `look` alone; for a `with`."""

    def __init__(self, console: Console, tally: Tally, system: System) -> None:
        super().__init__(console, draw_every_s=DRAW_EVERY_S, line_every_s=LINE_EVERY_S)
        self._tally = tally
        self._workers = system.workers
        self._kafka = system.own_kafka

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.look(now=True)
        super().__exit__(kind, error, trace)

    def look(self, *, now: bool = False) -> None:
        """Draw, unless that was done a moment ago."""
        self.show(self._picture, self._line, now=now)

    def _line(self) -> str:
        tally = self._tally
        states = ", ".join(f"{worker.name} {worker.state}" for worker in self._workers)
        if self._kafka is not None and self._kafka.state:
            states += f", {self._kafka.state}"
        return (
            f"sent {tally.sent:,}  results {tally.results:,} of {tally.events:,}  charged {tally.charged:,}  "
            f"replayed {tally.replayed:,}  {tally.rate():,.0f}/s  {states}"
        )

    def _picture(self) -> Group:
        tally = self._tally
        bars = Table.grid(padding=(0, 2))
        for name, count in (("sent", tally.sent), ("results", tally.results)):
            bar = ProgressBar(total=tally.events, completed=count, width=40)
            bars.add_row(name, bar, f"{count:,} of {tally.events:,} events")
        counts = f"charged {tally.charged:,}   replayed {tally.replayed:,}   {tally.rate():,.0f} results/s"
        lines = [Text(counts)]
        for worker in self._workers:
            style = "green" if worker.assigned else "yellow"
            lines.append(Text.assemble(f"{worker.name}  ", (worker.state, style), f"  pid {worker.pid}"))
        if self._kafka is not None and self._kafka.state:
            lines.append(Text(self._kafka.state, "green" if self._kafka.whole else "yellow"))
        return Group(bars, *lines)
