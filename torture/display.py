"""Shows a run while it goes on: live in a terminal, else a line now and then."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamsocial_billing.cli.live_view import LiveView
from torture.run import State
from torture.system import System
from torture.watch import Watch

DRAW_EVERY_S: Final = 0.25
LINE_EVERY_S: Final = 5.0


class Display(LiveView):
    """Called by the conductor again and again; draws when it is time; for a `with`."""

    def __init__(self, console: Console, system: System) -> None:
        super().__init__(console, draw_every_s=DRAW_EVERY_S, line_every_s=LINE_EVERY_S)
        self._system = system

    def __call__(self, state: State, watch: Watch) -> None:
        """Draw, unless that was done a moment ago."""
        self.show(lambda: self._picture(state, watch), lambda: self._line(state, watch))

    def _line(self, state: State, watch: Watch) -> str:
        return (
            f"{state.elapsed_s:5.0f} s  {state.phase}  faults {state.ended} of {state.planned}  "
            f"answered {watch.answered:,}  {self._processes()}  {under_way(state)}"
        )

    def _picture(self, state: State, watch: Watch) -> Group:
        bar = Table.grid(padding=(0, 2))
        progress = ProgressBar(total=max(1, state.planned), completed=state.ended, width=40)
        bar.add_row("faults", progress, f"{state.ended} of {state.planned}")
        lines = [
            f"{state.phase}, {state.elapsed_s:.0f} s   answered {watch.answered:,}   {self._processes()}",
            under_way(state) or "no fault at the moment",
        ]
        failures = [Text(failure.splitlines()[0], "red") for failure in list(state.failures)[-5:]]
        return Group(bar, *map(Text, lines), *failures)

    def _processes(self) -> str:
        states = [
            f"{worker.name} {'frozen' if worker.frozen else 'up' if worker.running else 'down'}"
            for worker in self._system.workers.values()
        ]
        return ", ".join([*states, *self._system.kafka.away()])


def under_way(state: State) -> str:
    """The faults of this moment, in words; behind, open at the quiet end."""
    if state.phase == "quiet end":
        return f"{state.behind} offsets behind, {state.open} payments unknown"
    return ", ".join(f"{one.kind} {one.target}" for one in list(state.active.values()))
