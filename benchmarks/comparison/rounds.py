"""The rounds: every configuration once in each, so that what is compared ran minutes apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from benchmarks.comparison.plan import Configuration, Plan
from benchmarks.comparison.records import Run

WARM_UP: Final = "warm-up of the broker"
Measure = Callable[[Configuration, int, int], Run]
"""Configuration, payments, number of the round."""


def run_rounds(
    plan: Plan, rounds: int, ends_at: float, measure: Measure, clock: Callable[[], float] = time.monotonic
) -> Iterator[Run]:
    """Each run as it ends; every other round backwards. A round that cannot end in time is not begun.

    The first round is always run: without it there is nothing to tell. Before it comes a short run that
    counts for nothing but its books: the broker's JVM is cold, which would be the first one's loss.
    """
    yield measure(replace(plan.configurations[0], name=WARM_UP, kind="drain"), plan.warm_up, 0)
    longest = 0.0
    for number in range(1, rounds + 1):
        began = clock()
        if number > 1 and began + longest > ends_at:
            return
        for one in plan.configurations if number % 2 else reversed(plan.configurations):
            yield measure(one, plan.payments(one), number)
        longest = max(longest, clock() - began)
