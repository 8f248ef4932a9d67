"""What must hold of a task's counters at every moment: pure.

Three records of the same work, changed in the same units, in different places: what came in is counted at
the agents' entry, what came of it where results are written, what is known of it lies in the tables.

- `answered`: events of `payments` handled = their first results + their dead letters
- `open`: payments listed in `open_payments` = opened by first results - settled by final results
- `results`: results counted by the rows of `charges` = first results + final results
- `charged`, `refunded`: money in the rows of `charges` = money of the results, per currency

Offsets are never subtracted: transaction markers take offsets too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from tables.task_counters import (
    CHARGED,
    DEAD_LETTERS,
    EVENTS,
    FINAL_RESULTS,
    FIRST_RESULTS,
    OPENED,
    REFUNDED,
)

INVARIANTS: Final = ("answered", "open", "results", "charged", "refunded", "readable")
"""Their names; `readable`: every row could be read."""
Numbers = Mapping[str, int]
"""A task's counters, by name (tables/task_counters.py)."""


class Break(NamedTuple):
    """An invariant that does not hold; `of` is the currency of money, else empty."""

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
    open: Counter[str] = field(default_factory=Counter)
    """Open payments by status; `unknown` where a release before this one wrote none."""
    charged: Counter[str] = field(default_factory=Counter)
    refunded: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def add_charges(self, values: Iterable[bytes]) -> None:
        """Rows of `charges`."""
        for value in values:
            try:
                self._add_state(orjson.loads(value))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                self.unreadable += 1

    def add_open(self, values: Iterable[bytes]) -> None:
        """Rows of `open_payments`."""
        for value in values:
            try:
                self.open[orjson.loads(value).get("status", "unknown")] += 1
            except (orjson.JSONDecodeError, TypeError, AttributeError):
                self.unreadable += 1

    def _add_state(self, state: Any) -> None:
        results = sum(state["counts"].values())
        for currency, money in state["money"].items():
            self.charged[currency] += money["charged_minor"]
            self.refunded[currency] += money["refunded_minor"]
        self.results += results
        self.users += 1


class Answered(NamedTuple):
    """The events of `payments` that a task has handled, by what came of them."""

    handled: int
    results: int
    dead_letters: int

    @property
    def lost(self) -> int:
        """Handled, no answer."""
        return max(0, self.handled - self.results - self.dead_letters)

    @property
    def double(self) -> int:
        """Answers too many."""
        return max(0, self.results + self.dead_letters - self.handled)

    def as_json(self) -> dict[str, int]:
        """For those who read `/audit`."""
        return {
            "handled": self.handled, "answered": self.results, "dead_letters": self.dead_letters,
            "lost": self.lost, "double": self.double,
        }  # fmt: skip


def answered(numbers: Numbers, topic: str) -> Answered:
    """What came of the events of a source topic."""
    return Answered(*(numbers.get(kind + topic, 0) for kind in (EVENTS, FIRST_RESULTS, DEAD_LETTERS)))


def still_open(numbers: Numbers) -> int:
    """Payments that were left open, not settled yet."""
    return numbers.get(OPENED, 0) - numbers.get(FINAL_RESULTS, 0)


def by_rest(numbers: Numbers, kind: str) -> dict[str, int]:
    """The numbers of a kind, by what follows it in their names: topics, currencies."""
    return {name.removeprefix(kind): n for name, n in sorted(numbers.items()) if name.startswith(kind)}


def breaks_of_counters(numbers: Numbers, topic: str) -> Iterator[Break]:
    """What does not hold among the counters alone; `topic` is the full name of `payments`."""
    found = answered(numbers, topic)
    if found.lost or found.double:
        yield Break("answered", "", found.handled, found.results + found.dead_letters)


def breaks_of_rows(numbers: Numbers, rows: Rows) -> Iterator[Break]:
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
