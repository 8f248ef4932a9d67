"""Choosing a commit: the longest prefix of finished units that never splits what it read."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile
from operator import attrgetter

from .units import Unit

_finished: Callable[[Unit], bool] = attrgetter("finished")


def choose(runs: Sequence[Iterable[Unit]], limit: int) -> list[list[Unit]]:
    """Take from each source partition what may commit now (point 2 of the contract).

    Args:
        runs: per source partition its uncommitted units in delivery order.
        limit: most units taken from one run.

    Returns:
        per run the chosen units, a prefix of it. No chosen unit has an uncommitted earlier unit of its key
        outside the choice.
    """
    chosen = [list(takewhile(_finished, islice(run, limit))) for run in runs]
    if sum(1 for run in runs if any(True for _ in run)) < 2:
        return chosen  # within one run an earlier unit of the key is in the prefix already
    while _cut(chosen):
        pass
    return chosen


def _cut(chosen: list[list[Unit]]) -> bool:
    """Shorten each run before its first unit whose predecessor is left out; True if anything changed."""
    kept = {unit for run in chosen for unit in run}
    changed = False
    for run in chosen:
        for place, unit in enumerate(run):
            before = unit.previous
            if before is not None and not before.committed and before not in kept:
                del run[place:]
                changed = True
                break
    return changed
