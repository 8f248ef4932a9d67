"""Shows the lab while it runs: a table in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab.guarantees import Guarantee
from lab.run import Outcome
from lab.witness import Witness
from lab.words import euros, verdict

LINE_EVERY_S: Final = 3.0
DRAW_EVERY_S: Final = 0.2


class Display:
    """For a `with`; `show` takes what a run says, `done` an outcome that has its books."""

    def __init__(self, console: Console, guarantees: list[Guarantee]) -> None:
        self._console = console
        self._rows = {one.key: [one.title, "waits", "", "", ""] for one in guarantees}
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._drawn_at = 0.0

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, outcome: Outcome, witness: Witness, phase: str) -> None:
        """What is so at this moment."""
        now = time.monotonic()
        if now < self._drawn_at + (DRAW_EVERY_S if self._live is not None else LINE_EVERY_S):
            return
        self._drawn_at = now
        committed, uncommitted = witness.committed.revenue, witness.uncommitted.revenue
        row = [
            outcome.guarantee.title, phase, f"{outcome.sent}", f"{len(witness.committed.results)}",
            f"{euros(committed)} committed, {euros(uncommitted)} with uncommitted records",
        ]  # fmt: skip
        self._rows[outcome.guarantee.key] = row
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            text = f"{row[0]}: {row[1]}, {row[2]} sent, {row[3]} results, revenue {row[4]}"
            self._console.print(text, highlight=False, soft_wrap=True)

    def done(self, outcome: Outcome) -> None:
        """A run is over."""
        text = verdict(outcome)
        row = self._rows[outcome.guarantee.key]
        self._rows[outcome.guarantee.key] = [row[0], "done", str(outcome.sent), row[3], text]
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            self._console.print(
                f"{row[0]} (seed {outcome.seed}): {text}", highlight=False, soft_wrap=True, style="bold"
            )

    def _table(self) -> Table:
        table = Table(*("guarantee", "phase", "sent", "results", ""), expand=True)
        for row in self._rows.values():
            table.add_row(*row)
        return table
