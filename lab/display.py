"""Shows the lab while it runs: a table in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table

from lab.guarantees import Guarantee
from lab.run import Outcome
from lab.witness import Witness
from lab.words import euros, verdict
from streamsocial_billing.cli.live_view import LiveView

LINE_EVERY_S: Final = 3.0
DRAW_EVERY_S: Final = 0.2


class Display(LiveView):
    """For a `with`; `look` takes what a run says, `done` an outcome that has its books."""

    def __init__(self, console: Console, guarantees: list[Guarantee]) -> None:
        super().__init__(console, draw_every_s=DRAW_EVERY_S, line_every_s=LINE_EVERY_S)
        self._rows = {one.key: [one.title, "waits", "", "", ""] for one in guarantees}

    def look(self, outcome: Outcome, witness: Witness, phase: str) -> None:
        """What is so at this moment."""
        committed, uncommitted = witness.committed.revenue, witness.uncommitted.revenue
        row = [
            outcome.guarantee.title, phase, f"{outcome.sent}", f"{len(witness.committed.results)}",
            f"{euros(committed)} committed, {euros(uncommitted)} with uncommitted records",
        ]  # fmt: skip
        self._rows[outcome.guarantee.key] = row
        line = f"{row[0]}: {row[1]}, {row[2]} sent, {row[3]} results, revenue {row[4]}"
        self.show(self._table, lambda: line)

    def done(self, outcome: Outcome) -> None:
        """A run is over."""
        row, text = self._rows[outcome.guarantee.key], verdict(outcome)
        self._rows[outcome.guarantee.key] = [row[0], "done", str(outcome.sent), row[3], text]
        line = f"{row[0]} (seed {outcome.seed}): {text}"
        self.show(self._table, lambda: line, now=True, style="bold")

    def _table(self) -> Table:
        table = Table(*("guarantee", "phase", "sent", "results", ""), expand=True)
        for row in self._rows.values():
            table.add_row(*row)
        return table
