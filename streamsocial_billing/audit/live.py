"""What must hold of a task's counters at every moment: pure.

Three records of the same work, changed in the same units, in different places: what came in is counted at
the agents' entry, what came of it where results are written, what is known of it lies in the tables.

- `answered`: events of `payments` handled = their first results + their dead letters
- `open`: payments listed in `open_payments` = opened by first results - settled by final results
- `results`: results counted by the rows of `charges` = first results + final results
- `charged`, `refunded`: money in the rows of `charges` = money of the results, per currency
- `outcomes`: results by status in the rows of `charges` = results counted by outcome. What an older release
  handled is in the rows alone: where there is any, the rows may have more, never less

Offsets are never subtracted: transaction markers take offsets too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streamsocial_billing.audit.outcomes import Numbers, answered, breakdown, by_rest, still_open
from tables.charges import ChargeState, read_charge_state
from tables.open_payments import read_open_payment
from tables.rows import InvalidRow
from tables.task_counters import CHARGED, FINAL_RESULTS, FIRST_RESULTS, REFUNDED

INVARIANTS: Final = ("answered", "open", "results", "charged", "refunded", "outcomes", "readable")
"""Their names; `readable`: every row could be read."""


class Break(NamedTuple):
    """An invariant that does not hold; `of`: the currency of money, the status of outcomes, else empty."""

    invariant: str
    of: str
    expected: int
    actual: int

    def __str__(self) -> str:
        about = f" {self.of}" if self.of else ""
        return f"{self.invariant}{about}: {self.expected} expected, {self.actual} found"


@dataclass(slots=True)
class Rows:
    """What the rows of a task's tables amount to, added up row by row."""

    users: int = 0
    results: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    """Results as the rows of `charges` count them: by status, replayed ones under `replayed`."""
    open: Counter[str] = field(default_factory=Counter)
    """Open payments by status; `unknown` where a release before this one wrote none."""
    charged: Counter[str] = field(default_factory=Counter)
    refunded: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def add_charges(self, values: Iterable[bytes]) -> None:
        """Rows of `charges`."""
        for value in values:
            try:
                self._add_state(read_charge_state(value))
            except InvalidRow:
                self.unreadable += 1

    def add_open(self, values: Iterable[bytes]) -> None:
        """Rows of `open_payments`."""
        for value in values:
            try:
                self.open[read_open_payment(value).get("status", "unknown")] += 1
            except InvalidRow:
                self.unreadable += 1

    def _add_state(self, state: ChargeState) -> None:
        results = sum(state["counts"].values())
        for currency, money in state["money"].items():
            self.charged[currency] += money["charged_minor"]
            self.refunded[currency] += money["refunded_minor"]
        self.by_status.update(state["counts"])
        self.results += results
        self.users += 1


def breaks_of_counters(numbers: Numbers, topic: str) -> Iterator[Break]:
    """What does not hold among the counters alone; `topic` is the full name of `payments`."""
    found = answered(numbers, topic)
    if found.lost or found.double:
        yield Break("answered", "", found.handled, found.results + found.dead_letters)
    known = breakdown(numbers, topic)
    if known.uncounted < 0:
        yield Break("outcomes", "", found.results, found.results - known.uncounted)


def breaks_of_rows(numbers: Numbers, rows: Rows, topic: str) -> Iterator[Break]:
    """What does not hold between the counters and the rows of the tables, both as one commit left them."""
    if rows.unreadable:
        yield Break("readable", "", 0, rows.unreadable)
    listed = rows.open.total()
    if still_open(numbers) != listed:
        yield Break("open", "", still_open(numbers), listed)
    results = sum(by_rest(numbers, FIRST_RESULTS).values()) + numbers.get(FINAL_RESULTS, 0)
    if results != rows.results:
        yield Break("results", "", results, rows.results)
    for name, kind, found in (("charged", CHARGED, rows.charged), ("refunded", REFUNDED, rows.refunded)):
        counted = by_rest(numbers, kind)
        for currency in sorted(counted.keys() | found.keys()):
            if counted.get(currency, 0) != found[currency]:
                yield Break(name, currency, counted.get(currency, 0), found[currency])
    yield from _breaks_of_outcomes(numbers, rows, topic)


def _breaks_of_outcomes(numbers: Numbers, rows: Rows, topic: str) -> Iterator[Break]:
    """By status of results; the rows may know more only where a release that counted none wrote some."""
    known = breakdown(numbers, topic)
    counted = {
        "succeeded": known.charged + known.refunded + known.external,
        "declined": known.declined, "failed": known.failed, "rejected": known.rejected,
        "replayed": known.repeats,
    }  # fmt: skip
    for status, number in counted.items():
        in_rows = rows.by_status[status]
        if number > in_rows or (known.uncounted <= 0 and number < in_rows):
            yield Break("outcomes", status, number, in_rows)
