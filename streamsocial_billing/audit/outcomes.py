"""What became of the events of `payments`, by a task's counters: pure.

    handled = charged + refunded + declined + failed + rejected + open + repeats + dead_letters + uncounted

Everything that shows these figures uses these names; `audit` adds `waiting`, what no worker has handled yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tables.task_counters import (
    DEAD_LETTERS,
    EVENTS,
    FINAL_RESULTS,
    FIRST_RESULTS,
    OPENED,
    OUTCOMES,
    PARKED,
)

Numbers = Mapping[str, int]
"""A task's counters, by name (tables/task_counters.py)."""


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


class Breakdown(NamedTuple):
    """Events of `payments` that were handled, by what became of them.

    charged, refunded     charges, refunds that succeeded
    open                  first results `unknown` or `parked` that nothing has settled yet
    repeats               answered with a stored outcome, final or open
    dead_letters_elsewhere  dead letters of other topics: no part of `handled`
    external              results of what a gateway made: no part of `handled`
    uncounted             handled by a release that did not count outcomes, so none of the above; below 0:
                          outcomes were counted that no result accounts for
    """

    handled: int
    charged: int
    refunded: int
    declined: int
    failed: int
    rejected: int
    open: int
    repeats: int
    dead_letters: int
    uncounted: int
    dead_letters_elsewhere: int
    external: int

    def as_json(self) -> dict[str, int]:
        """For those who read `/audit`."""
        return self._asdict() | {"uncounted": max(0, self.uncounted)}

    def ended(self) -> dict[str, int]:
        """The parts of `handled` that never become less: all but `open`."""
        shown = self.as_json()
        return {name: shown[name] for name in (*ENDED, "repeats", "dead_letters", "uncounted")}


ENDED = ("charged", "refunded", "declined", "failed", "rejected")
"""Outcomes that are final, as they are counted."""


def breakdown(numbers: Numbers, topic: str) -> Breakdown:
    """By the counters of one task, or their sum over tasks; `topic` is the full name of `payments`.

    `uncounted` is what the results say beyond the outcomes. It stays what it was at the upgrade, also where
    a payment that was left open before it is settled after it, and grows while an older worker is at work.
    """
    found = answered(numbers, topic)
    ended = {name: numbers.get(OUTCOMES + name, 0) for name in ENDED}
    repeats, left_open = numbers.get(OUTCOMES + "repeats", 0), still_open(numbers)
    return Breakdown(
        handled=found.handled, **ended, open=left_open, repeats=repeats, dead_letters=found.dead_letters,
        uncounted=found.results - sum(ended.values()) - repeats - left_open,
        dead_letters_elsewhere=sum(by_rest(numbers, DEAD_LETTERS).values()) - found.dead_letters,
        external=numbers.get(FIRST_RESULTS + "external", 0),
    )  # fmt: skip


def open_now(numbers: Numbers, walked: Numbers, listed: Mapping[str, int]) -> dict[str, int]:
    """Open payments by status, as of `numbers`.

    `listed` is what a walk through the rows found, `walked` the counters of that moment: since then both have
    changed by the same.
    """
    parked = listed.get("parked", 0) + numbers.get(PARKED, 0) - walked.get(PARKED, 0)
    return {"unknown": still_open(numbers) - parked, "parked": parked}
