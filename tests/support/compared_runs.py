"""Runs of a comparison, with right and with wrong books."""

from __future__ import annotations

from benchmarks.comparison.records import Books, Run

RIGHT = Books(
    events=3, distinct=2, amount_minor=998, results=3, charged_ids=2, charged_twice=0, duplicates=1,
    metrics=3, metrics_charged=2,
)  # fmt: skip
WRONG = Books(
    events=3, distinct=2, amount_minor=998, results=4, charged_ids=2, charged_twice=1, duplicates=1,
    metrics=4, metrics_charged=3,
)  # fmt: skip


def run(name: str, number: int, per_s: float, cpu_us: float = 100, books: Books = RIGHT) -> Run:
    """One run."""
    return Run(name, number, 3, {"results_per_s": per_s, "cpu_us": cpu_us}, books)
