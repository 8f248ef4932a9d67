"""Numbers, lists, lengths of time as an English sentence has them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 payment`, `1,200 payments`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(numbers: Iterable[int]) -> str:
    """Runs of whole numbers: `0-3, 7`."""
    pairs = enumerate(sorted(set(numbers)))
    runs = [[n for _, n in run] for _, run in groupby(pairs, key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def partitions(numbers: Iterable[int]) -> str:
    """`partition 3`, `partitions 0-3, 7`."""
    found = sorted(set(numbers))
    return f"partition{'' if len(found) == 1 else 's'} {listed(found)}"


def lasting(seconds: float) -> str:
    """A length of time in its largest whole unit: `45 s`, `12 min`, `3 h`, `2 days`."""
    whole = max(0, int(seconds))
    for size, unit in ((86_400, "day"), (3_600, "h"), (60, "min")):
        if whole >= 2 * size:
            amount = whole // size
            return f"{amount} {unit}s" if unit == "day" else f"{amount} {unit}"
    return f"{whole} s"
