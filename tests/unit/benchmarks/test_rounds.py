"""Rounds in turn, within the time; what the plan says can be run and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.arrivals import rates
from benchmarks.comparison.command import BEGINS, ENDS, PAGE, filled
from benchmarks.comparison.measure import percentiles
from benchmarks.comparison.peers import PEERS, Job
from benchmarks.comparison.picture import draw
from benchmarks.comparison.plan import FIGURES, FULL, OURS, SHORT, Configuration, Plan
from benchmarks.comparison.records import Books, Comparison, Run
from benchmarks.comparison.rounds import run_rounds
from streamsocial_billing.settings import Settings

BOOKS = Books(
    events=0, distinct=0, amount_minor=0, results=0, charged_ids=0, charged_twice=0, duplicates=0, metrics=0,
    metrics_charged=0,
)  # fmt: skip
TWO = Plan((Configuration("a", "ours", "drain"), Configuration("b", "quix", "drain", 50)), (), 3, 2, 1)


class Clocked:
    """Each run takes ten seconds of a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[tuple[str, int, int]] = []

    def measure(self, one: Configuration, count: int, number: int) -> Run:
        """Note it."""
        self.now += 10
        self.ran.append((one.name, count, number))
        return Run(one.name, number, count, {name: 1.0 for name in FIGURES}, BOOKS)


def test_every_other_round_runs_backwards_after_a_warm_up() -> None:
    """So that neither is always the first; each with the size of its gateway."""
    clocked = Clocked()
    list(run_rounds(TWO, 2, 1e9, clocked.measure, lambda: clocked.now))
    expected = [("warm-up of the broker", 1, 0), ("a", 3, 1), ("b", 2, 1), ("b", 2, 2), ("a", 3, 2)]
    assert expected == clocked.ran


@pytest.mark.parametrize(("ends_at", "rounds"), [(0, 1), (49, 1), (50, 2), (70, 3), (1000, 5)])
def test_a_round_that_would_not_end_in_time_is_not_begun(ends_at: float, rounds: int) -> None:
    """A warm-up of ten seconds, then rounds of twenty; the first is always run."""
    clocked = Clocked()
    runs = list(run_rounds(TWO, 5, ends_at, clocked.measure, lambda: clocked.now))
    assert rounds == runs[-1].round


@pytest.mark.parametrize("plan", [SHORT, FULL])
def test_a_plan_names_what_there_is(plan: Plan) -> None:
    """Peers, configurations of pairs, figures; no name twice."""
    names = [one.name for one in plan.configurations]
    assert sorted(set(names)) == sorted(names)
    assert set() == {one.peer for one in plan.configurations} - PEERS.keys()
    assert set() == {name for pair in plan.pairs for name in (pair.ours, pair.peer)} - set(names)
    assert set() == {figure for pair in plan.pairs for figure in pair.figures} - FIGURES.keys()


@pytest.mark.parametrize(
    "one", [one for one in FULL.configurations if one.peer == OURS], ids=lambda one: str(one.name)
)
def test_our_worker_accepts_the_settings_of_each_configuration(one: Configuration, tmp_path: Path) -> None:
    """An unknown setting would stop its start."""
    job = Job(one, "127.0.0.1:9092", "x1", tmp_path)
    environment = job.environment(0)
    assert "x1." == environment["BILLING_TOPIC_PREFIX"]
    assert job.settings().topic("payments") == Settings.from_environment(environment).topic("payments")


def test_what_was_set_for_another_worker_does_not_reach_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's own settings would be measured, too."""
    monkeypatch.setenv("BILLING_MAX_IN_FLIGHT", "1")
    assert "BILLING_MAX_IN_FLIGHT" not in Job(SHORT.configurations[0], "b:1", "x", tmp_path).environment(0)


def test_rates_leave_out_the_first_batch() -> None:
    """Its results took longer than the time between arrivals; the second half stands beside."""
    assert (20.0, 10.0) == rates([(0.0, 5), (1.0, 30), (2.0, 10)])


def test_percentiles_are_of_the_sorted_latencies() -> None:
    """And nothing of none."""
    assert {} == percentiles([])
    found = percentiles([float(number) for number in range(100, 0, -1)])
    assert {"samples": 100, "p50_ms": 51.0, "p95_ms": 96.0, "p99_ms": 100.0, "max_ms": 100.0} == found


def test_the_picture_is_drawn_twice_and_the_same(tmp_path: Path) -> None:
    """SVG for the page, PNG for others; a second time it has the same bytes."""
    clocked = Clocked()
    found = Comparison({"measured": "now"}, [clocked.measure(one, 1, 1) for one in SHORT.configurations])
    svg, png = draw(found, SHORT.configurations, tmp_path)
    first = svg.read_bytes()
    draw(found, SHORT.configurations, tmp_path)
    assert (first, b"\x89PNG") == (svg.read_bytes(), png.read_bytes()[:4])


def test_the_page_has_the_place_for_the_figures() -> None:
    """What stood between the marks is replaced, the rest stays."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGINS) == page.count(ENDS) == 1
    once = filled(page, "the figures")
    assert "the figures" in once
    assert once == filled(once, "the figures")
    assert page.split(BEGINS)[0] == once.split(BEGINS)[0]
    assert page.split(ENDS)[1] == once.split(ENDS)[1]
