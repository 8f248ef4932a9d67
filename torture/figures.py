"""The figures of a run: what was done to it, how it took that, how sure "0 lost, 0 double" is."""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import orjson

from streamsocial_billing.audit.checks import Problem
from torture.checker import History

LOST: Final = frozenset({"lost event", "lost dead letter", "intake", "half an intake transaction"})
DOUBLE: Final = frozenset({
    "double result", "double dead letter", "result and dead letter", "charged twice in the results",
    "charged twice at the gateway", "two final outcomes", "settled twice",
})  # fmt: skip
DEATHS: Final = frozenset({"kill", "kill_at_point"})
FENCED: Final = ("TaskFenced", "MembershipLost")
STAGES: Final = re.compile(r"stages in ms (\{[^}]*\})")
SURE: Final = 3.0
"""Without any failure in N payments the rate lies below 3/N with 95 % confidence (the rule of three)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How some times are spread, in seconds; None where there are too few."""

    count: int
    median: float | None
    p95: float | None
    worst: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the report says in numbers; times in seconds."""

    seed: int
    seconds: float
    payments: int
    charged: int
    answered: int
    replayed: int
    dead_letters: int
    faults: Mapping[str, int]
    kills_at_points: Mapping[str, int]
    commits: int
    aborts: int
    rebalances: int
    incarnations: int
    fenced: int
    unknown_resolved: int
    recovery: Spread
    rebalance_stop: Spread
    peak_mb: Mapping[str, int]
    lost: int
    double: int
    bound_95: float | None
    brokers: int
    away_s: Mapping[str, float]
    markers_written: Sequence[str]
    violations: Sequence[str]
    failures: Sequence[str]

    @property
    def clean(self) -> bool:
        """True if nothing at all was found."""
        return not self.violations and not self.failures

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        return asdict(self) | {"clean": self.clean}


def figures_of(
    run: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]],
    history: History, problems: Sequence[Problem],
) -> Figures:  # fmt: skip
    """Count; `run`, `faults`, `events` as they stand in the run's folder."""
    results = history.books.results
    kinds = Counter(problem.kind for problem in problems)
    said = Counter(event["what"] for event in events)
    ends = {one.end for records in history.written.values() for one in records}
    outcomes = Counter(outcome for _, _, outcome in ends)
    points = Counter(
        fault["detail"]["point"] for fault in faults
        if fault["kind"] == "kill_at_point" and fault.get("detail", {}).get("reached")
    )  # fmt: skip
    payments = len(history.books.sent)
    lost = sum(kinds[kind] for kind in LOST)
    double = sum(kinds[kind] for kind in DOUBLE)
    return Figures(
        seed=run["seed"], seconds=run["ended_at"] - run["started_at"], payments=payments,
        charged=len(history.books.ledger), answered=sum(not one.resolves for one in results),
        replayed=sum(one.replayed for one in results), dead_letters=sum(history.books.dead.values()),
        faults=dict(Counter(fault["kind"] for fault in faults)), kills_at_points=dict(points),
        commits=outcomes["commit"], aborts=outcomes["abort"], rebalances=said["rebalance"],
        incarnations=said["runs"],
        fenced=sum(e["what"] == "incarnation ends" and e["why"].startswith(FENCED) for e in events),
        unknown_resolved=sum(one.resolves for one in results),
        recovery=spread(recoveries(faults, history)), rebalance_stop=spread(rebalance_stops(events)),
        peak_mb={worker: peak // 2**20 for worker, peak in history.peak_bytes.items()},
        brokers=run.get("brokers", 1), away_s=away(faults),
        markers_written=[str(e.get("missing", e["marker"])) for e in events if e["what"] == "marker written"],
        lost=lost, double=double, bound_95=None if lost or double or not payments else SURE / payments,
        violations=[str(problem) for problem in problems], failures=list(run.get("failures", ())),
    )  # fmt: skip


def away(faults: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Per broker of several, and for their controller, the seconds for which faults had it away."""
    found: dict[str, float] = defaultdict(float)
    for who, since, until in away_spans(faults):
        found[who] += until - since
    return {who: round(seconds, 1) for who, seconds in sorted(found.items())}


def away_spans(faults: Iterable[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Who was away from when to when."""
    details = [fault.get("detail") or {} for fault in faults]
    return [(who, since, until) for detail in details for who, since, until in detail.get("away", ())]


def recoveries(faults: Iterable[Mapping[str, Any]], history: History) -> list[float]:
    """Per death of a worker the seconds until every partition that has later results has one again."""
    moments: dict[int, list[float]] = defaultdict(list)
    for one in history.committed("charge-results"):
        moments[one.place[1]].append(orjson.loads(one.value or b"")["processed_at"] / 1000)
    for times in moments.values():
        times.sort()
    found = []
    for fault in faults:
        if fault["kind"] in DEATHS:
            next_ones = [_first_after(times, fault["at"]) for times in moments.values()]
            waits = [moment - fault["at"] for moment in next_ones if moment is not None]
            found += [max(waits)] if waits else []
    return found


def _first_after(times: Sequence[float], at: float) -> float | None:
    place = bisect_left(times, at)
    return times[place] if place < len(times) else None


def rebalance_stops(events: Iterable[Mapping[str, Any]]) -> list[float]:
    """Per rebalance the seconds from the revocation to the new assignment, as the workers tell them."""
    found = []
    for event in events:
        stages = STAGES.search(event.get("tasks", "")) if event["what"] == "rebalance" else None
        if stages is not None:
            told: dict[str, float] = ast.literal_eval(stages[1])
            found.append(sum(told.values()) / 1000)
    return found


def spread(seconds: Sequence[float]) -> Spread:
    """Median, 95th percentile, worst."""
    if not seconds:
        return Spread(0, None, None, None)
    p95 = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return Spread(len(seconds), round(median(seconds), 2), round(p95, 2), round(max(seconds), 2))


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; none where it is missing."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
