"""Ours beside a peer, within the same round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.comparison.plan import FIGURES, Pair
from benchmarks.comparison.records import Run


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by the peer's, a number for each round in which both have right books."""

    pair: Pair
    figure: str
    by_round: Sequence[float]

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.by_round)

    @property
    def standing(self) -> float:
        """How well we stand: above 1 we are better, whichever direction the figure has."""
        if FIGURES[self.figure].more_is_better:
            return self.median
        return 1 / self.median if self.median else float("inf")


def ratios(runs: Iterable[Run], pairs: Iterable[Pair]) -> list[Ratio]:
    """All that can be formed, where we stand worst first; none of a run whose books are wrong."""
    good = {(run.configuration, run.round): run.figures for run in runs if not run.faults()}
    numbers = sorted({number for _, number in good})
    found = []
    for pair in pairs:
        rounds = [(good.get((pair.ours, number)), good.get((pair.peer, number))) for number in numbers]
        both = [(ours, peer) for ours, peer in rounds if ours and peer]
        for figure in pair.figures:
            values = [ours[figure] / peer[figure] for ours, peer in both if _has(figure, ours, peer)]
            if values:
                found.append(Ratio(pair, figure, values))
    return sorted(found, key=lambda ratio: ratio.standing)


def _has(figure: str, ours: Mapping[str, float], peer: Mapping[str, float]) -> bool:
    return figure in ours and bool(peer.get(figure))
