"""What the report says of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from support.good_history import GoodRun

from streamsocial_billing.audit.checks import Problem
from torture.figures import Figures, figures_of, spread
from torture.report import page, print_table, write

RUN = {"seed": 5, "started_at": 100.0, "ended_at": 160.0, "failures": []}
FAULTS: list[dict[str, Any]] = [
    {"at": 101.0, "until": 103.0, "kind": "kill", "target": "w1", "detail": {"back_s": 1.0}},
    {"at": 0.0015, "until": 1.0, "kind": "kill", "target": "w2", "detail": {}},
    {"at": 110.0, "until": 111.0, "kind": "kill_at_point", "target": "w2",
     "detail": {"point": "before_send", "reached": True}},
    {"at": 112.0, "until": 113.0, "kind": "kill_at_point", "target": "w2",
     "detail": {"point": "after_store", "reached": False}},
]  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"at": 101.0, "what": "answered", "count": 10},
    {"at": 102.0, "what": "answered", "count": 40},
    {"at": 102.5, "what": "rebalance", "tasks": "[0], stages in ms {'revoke': 500, 'join': 700}"},
    {"at": 103.0, "what": "incarnation ends", "worker": "w1", "why": "TaskFenced('x')"},
    {"at": 103.5, "what": "incarnation ends", "worker": "w1", "why": "OutcomeUnknown('x')"},
    {"at": 104.0, "what": "answered", "count": 41},
]


def figures(problems: tuple[Problem, ...] = ()) -> Figures:
    """Of a good run with these problems."""
    return figures_of(RUN, FAULTS, EVENTS, GoodRun(5).history(), problems)


def test_the_figures_are_counted_from_what_the_run_left() -> None:
    """Payments, faults, points that were reached, transactions, fences, times."""
    found, run = figures(), GoodRun(5)
    assert len(run.events) == found.payments
    assert {"kill": 2, "kill_at_point": 2} == found.faults
    assert {"before_send": 1} == found.kills_at_points
    assert len(run.topics["offsets"]) == found.commits
    assert (0, 1, 1) == (found.aborts, found.rebalances, found.fenced)
    assert 1.2 == found.rebalance_stop.worst
    assert 60.0 == found.seconds
    assert 1 == found.recovery.count  # results of the good run lie 2 ms after the epoch, before the others
    assert 0.0 == found.recovery.worst


def test_a_clean_run_says_how_sure_it_is() -> None:
    """No failure in N payments: below 3/N with 95 % confidence; else no bound at all."""
    found = figures()
    assert found.clean
    assert found.bound_95 is not None
    assert pytest.approx(3 / found.payments) == found.bound_95
    broken = figures((Problem("lost event", "ann/pay", "0 results"), Problem("double result", "x", "2")))
    assert (1, 1, None, False) == (broken.lost, broken.double, broken.bound_95, broken.clean)


def test_a_spread_of_nothing_says_so() -> None:
    """No median of no times."""
    assert (0, None) == (spread([]).count, spread([]).worst)
    assert (1.0, 1.0) == (spread([1.0]).p95, spread([1.0]).median)


def test_the_report_is_written_shown_escaped(tmp_path: Path) -> None:
    """JSON that reads back, a page with each kind of fault, no markup from outside."""
    found = figures((Problem("lost event", "<script>", "gone"),))
    write(tmp_path, found, FAULTS, EVENTS)
    told = orjson.loads((tmp_path / "report.json").read_bytes())
    assert (False, 1) == (told["clean"], told["lost"])
    text = (tmp_path / "report.html").read_text()
    assert "<script>" not in text
    assert all(kind in text for kind in ("kill_at_point", "answers per second", "not clean"))
    console = Console(record=True, width=150)
    print_table(found, console)
    assert "lost event" in console.export_text()


def test_a_run_that_saw_nothing_has_a_page_too() -> None:
    """The time line is left out."""
    assert "nothing was seen" in page(figures(), [], [])


OF_THREE: list[dict[str, Any]] = [
    {"at": 102.0, "until": 112.0, "kind": "broker_kill", "target": "broker",
     "detail": {"broker": 2, "away": [["broker 2", 102.0, 108.5]], "start_s": 4.5, "whole_s": 3.5}},
    {"at": 120.0, "until": 130.0, "kind": "min_insync_lost", "target": "brokers",
     "detail": {"away": [["broker 1", 120.0, 129.0], ["broker 2", 120.0, 129.0]]}},
    {"at": 131.0, "until": 133.0, "kind": "broker_freeze", "target": "broker", "broken": "Traceback"},
]  # fmt: skip
FORGOTTEN = "results-2@12: producer 7 lacks its COMMIT marker"


def test_of_three_brokers_the_report_says_which_was_away_and_what_kafka_forgot(tmp_path: Path) -> None:
    """Seconds by broker, a lane each in the time line; a marker that was written by hand is named."""
    events = [*EVENTS, {"at": 140.0, "what": "marker written", "marker": [], "missing": FORGOTTEN}]
    found = figures_of({**RUN, "brokers": 3}, OF_THREE, events, GoodRun(5).history(), ())
    assert (3, {"broker 1": 9.0, "broker 2": 15.5}) == (found.brokers, found.away_s)
    assert ([FORGOTTEN], True) == (found.markers_written, found.clean)
    write(tmp_path, found, OF_THREE, events)
    text = (tmp_path / "report.html").read_text()
    assert text.count("broker 2 away</title>") == 2
    assert all(f">{lane}</text>" in text for lane in ("broker 1", "broker 2", "broker_kill"))
    console = Console(record=True, width=200)
    print_table(found, console)
    said = console.export_text()
    assert all(words in said for words in ("broker 1 9 s, broker 2 16 s", f"1: {FORGOTTEN}"))


def test_of_one_broker_the_report_says_nothing_of_others() -> None:
    """As long as Kafka forgot nothing."""
    text = page(figures(), FAULTS, EVENTS)
    assert not any(words in text for words in ("<td>brokers", "<td>away", "forgot"))
