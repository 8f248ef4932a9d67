"""Ours beside a peer: within a round, worst first, wrong books first of all."""

from __future__ import annotations

import pytest
from support.compared_runs import RIGHT, WRONG, run

from benchmarks.comparison.plan import Configuration, Pair
from benchmarks.comparison.ratios import ratios
from benchmarks.comparison.records import Comparison, Run
from benchmarks.comparison.tables import told

CONFIGURATIONS = (Configuration("ours", "ours", "drain"), Configuration("theirs", "flink", "drain"))
PAIR = Pair("ours", "theirs", ("results_per_s", "cpu_us"))


def test_ratios_are_taken_within_a_round() -> None:
    """The machine was half as fast in the second: both were, and the ratio stays."""
    runs = [run("ours", 1, 100), run("theirs", 1, 200), run("theirs", 2, 100), run("ours", 2, 50)]
    (found,) = [one for one in ratios(runs, [PAIR]) if one.figure == "results_per_s"]
    assert ([0.5, 0.5], 0.5) == (found.by_round, found.median)


def test_where_we_stand_worst_leads() -> None:
    """Three times the CPU is worse than half the rate; less is better there."""
    runs = [run("ours", 1, 100, 300), run("theirs", 1, 200, 100)]
    assert ["cpu_us", "results_per_s"] == [one.figure for one in ratios(runs, [PAIR])]


def test_no_ratio_is_made_of_wrong_books() -> None:
    """Of that round; the others count."""
    runs = [run("ours", 1, 999, books=WRONG), run("theirs", 1, 1), run("ours", 2, 1), run("theirs", 2, 2)]
    assert {(0.5,), (1.0,)} == {tuple(one.by_round) for one in ratios(runs, [PAIR])}


@pytest.mark.parametrize("figures", [{}, {"results_per_s": 0.0}])
def test_what_was_not_measured_makes_no_ratio(figures: dict[str, float]) -> None:
    """A peer without results has no rate."""
    runs = [run("ours", 1, 100), Run("theirs", 1, 3, figures, RIGHT)]
    assert [] == ratios(runs, [PAIR])


def test_the_table_begins_with_the_ratios() -> None:
    """Then figures of each configuration, each round's, with the word on its books."""
    runs = [run("ours", 1, 1234), run("theirs", 1, 2468), run("ours", 2, 99.5), run("theirs", 2, 199)]
    text = told(Comparison({"machine": "two cores"}, runs), CONFIGURATIONS, [PAIR])
    assert text.startswith("### Ours divided by the peer's, worst first\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["ours", "theirs", "results/s", "more", "0.50", "0.50 0.50"] in cells
    assert ["ours", "3", "1234 99.5", "-", "100 100", "-", "-", "-", "right"] in cells
    assert "- machine: two cores" in text


def test_wrong_books_lead_the_output() -> None:
    """Before any ratio; the row of its figures says it, too."""
    runs = [run("ours", 1, 100, books=WRONG), run("theirs", 1, 200), run("ours", 2, 100)]
    text = told(Comparison({}, runs), CONFIGURATIONS, [PAIR])
    assert text.startswith("FAILED: 1 run counts for nothing")
    assert "ours, round 1: payments charged twice or more: 1" in text
    assert "WRONG in 1 of 2" in text


def test_a_run_that_did_not_end_counts_for_nothing() -> None:
    """Its books may be right so far."""
    ended = Run("ours", 1, 3, {"results_per_s": 100.0}, RIGHT, trouble="gave up")
    assert [] == ratios([ended, run("theirs", 1, 100)], [PAIR])
    assert "gave up" in told(Comparison({}, [ended]), CONFIGURATIONS, [PAIR]).split("###")[0]
