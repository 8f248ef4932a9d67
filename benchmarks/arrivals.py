"""How fast results came: batches with the time at which each arrived."""

from __future__ import annotations

from collections.abc import Sequence


def rates(arrivals: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Results a second over all but the first batch; over the second half. 0 where nothing came in it."""
    total = sum(n for _, n in arrivals)
    whole = (total - arrivals[0][1]) / max(arrivals[-1][0] - arrivals[0][0], 1e-9)
    seen = 0
    for at, n in arrivals:
        seen += n
        if seen >= total / 2:
            return whole, (total - seen) / max(arrivals[-1][0] - at, 1e-9)
    return whole, whole
