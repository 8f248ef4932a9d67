"""Shows the figures of a run: a table in the terminal, JSON, a page with a time line."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from torture.figures import Figures, Spread, away_spans

WIDTH, LEFT, LANE, GRAPH = 1100, 190, 16, 160
SHOWN_PROBLEMS: Final = 200
COLOURS: Final[Mapping[str, str]] = {
    "kill": "#c0392b", "freeze": "#2980b9", "gateway": "#8e44ad", "broker": "#d35400", "cut": "#16a085",
    "half": "#16a085", "delay": "#16a085", "end": "#16a085", "intake": "#7f8c8d",
}  # fmt: skip
STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1140px; padding: 0 1rem; }
h1 .clean { color: #1e8449 } h1 .broken { color: #b03a2e }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
td:last-child { font-variant-numeric: tabular-nums } svg text { font: 11px system-ui, sans-serif }
li { overflow-wrap: anywhere }
"""


def write(folder: Path, figures: Figures, faults: Sequence[Mapping[str, Any]], events: Sequence[Any]) -> None:
    """report.json with report.html into the run's folder."""
    (folder / "report.json").write_bytes(orjson.dumps(figures.as_json(), option=orjson.OPT_INDENT_2))
    (folder / "report.html").write_text(page(figures, faults, events), encoding="utf-8")


def print_table(figures: Figures, console: Console) -> None:
    """What a person wants to know, in the terminal."""
    table = Table("figure", "value", title=f"torture, seed {figures.seed}")
    for name, value in rows(figures):
        table.add_row(name, value)
    console.print(table)
    for problem in [*figures.violations, *figures.failures][:SHOWN_PROBLEMS]:
        console.print(problem, style="red", markup=False)


def rows(figures: Figures) -> list[tuple[str, str]]:
    """The figures as words."""
    return [
        ("payments appended", f"{figures.payments}"),
        ("answered / replayed / dead letters",
         f"{figures.answered} / {figures.replayed} / {figures.dead_letters}"),
        ("charges at the gateway", f"{figures.charged}"),
        ("faults", ", ".join(f"{n} {kind}" for kind, n in sorted(figures.faults.items())) or "none"),
        ("SIGKILL at named points",
         ", ".join(f"{n} {point}" for point, n in sorted(figures.kills_at_points.items())) or "none"),
        ("transactions committed / aborted", f"{figures.commits} / {figures.aborts}"),
        ("rebalances seen by workers / incarnations opened",
         f"{figures.rebalances} / {figures.incarnations}"),
        ("fenced or stale producers", f"{figures.fenced}"),
        ("unknown outcomes settled", f"{figures.unknown_resolved}"),
        ("every partition answers again after a SIGKILL", _words(figures.recovery)),
        ("stop of a rebalance", _words(figures.rebalance_stop)),
        *_of_brokers(figures),
        ("peak memory", ", ".join(f"{worker} {mb} MB" for worker, mb in figures.peak_mb.items()) or "?"),
        ("lost / double", _verdict(figures)),
        ("violations / failed faults", f"{len(figures.violations)} / {len(figures.failures)}"),
        ("time", f"{figures.seconds:.0f} s"),
    ]  # fmt: skip


def _of_brokers(figures: Figures) -> list[tuple[str, str]]:
    """How many there were, who was away for how long, what Kafka itself forgot."""
    rows = []
    if figures.brokers > 1:
        away = ", ".join(f"{who} {seconds:.0f} s" for who, seconds in figures.away_s.items())
        rows = [("brokers", f"{figures.brokers}"), ("away", away or "nobody")]
    if figures.markers_written:
        count, names = len(figures.markers_written), "; ".join(figures.markers_written)
        rows.append(("end markers that Kafka forgot, written by hand", f"{count}: {names}"))
    return rows


def _words(spread: Spread) -> str:
    if not spread.count:
        return "none seen"
    return f"median {spread.median} s, 95 % {spread.p95} s, worst {spread.worst} s ({spread.count})"


def _verdict(figures: Figures) -> str:
    if figures.bound_95 is None:
        return f"{figures.lost} / {figures.double}"
    return f"0 / 0: with 95 % confidence below {figures.bound_95:.2g} of a payment"


def page(figures: Figures, faults: Sequence[Mapping[str, Any]], events: Sequence[Any]) -> str:
    """A page that needs nothing else; every text in it is escaped."""
    verdict = "<span class=clean>clean</span>" if figures.clean else "<span class=broken>not clean</span>"
    cells = ((_safe(name), _safe(value)) for name, value in rows(figures))
    table = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in cells)
    found = [*figures.violations, *figures.failures]
    problems = "".join(f"<li>{_safe(problem)}</li>" for problem in found[:SHOWN_PROBLEMS])
    more = f"<p>and {len(found) - SHOWN_PROBLEMS} more</p>" if len(found) > SHOWN_PROBLEMS else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Torture, seed {figures.seed}</title>"
        f"<style>{STYLE}</style><h1>Torture, seed {figures.seed}: {verdict}</h1>"
        f"{time_line(faults, events)}<table>{table}</table><ul>{problems}</ul>{more}</html>"
    )


def time_line(faults: Sequence[Mapping[str, Any]], events: Sequence[Any]) -> str:
    """Answers per second above, one lane for each kind of fault below."""
    moments = [(event["at"], event["count"]) for event in events if event["what"] == "answered"]
    times = [at for at, _ in moments] + [fault[end] for fault in faults for end in ("at", "until")]
    if not times:
        return "<p>nothing was seen</p>"
    first, last = min(times), max(times)
    scale = (WIDTH - LEFT) / max(last - first, 1.0)

    def x(at: float) -> float:
        return float(LEFT + (at - first) * scale)

    kinds = sorted({fault["kind"] for fault in faults})
    spans = away_spans(faults)
    rows = [*kinds, *sorted({who for who, _, _ in spans})]
    height = GRAPH + 30 + LANE * len(rows)
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label='throughput with faults over time'>"
        f"{_throughput(moments, x)}{_lanes(faults, rows, x)}{_away(spans, rows, x)}"
        f"{_seconds(first, last, x, height)}</svg>"
    )


def _throughput(moments: Sequence[tuple[float, int]], x: Any) -> str:
    rates = [(b[0], max(0.0, (b[1] - a[1]) / max(b[0] - a[0], 1e-3))) for a, b in pairwise(moments)]
    if not rates:
        return ""
    top = max(rate for _, rate in rates) or 1.0
    points = " ".join(f"{x(at):.1f},{GRAPH - 10 - (GRAPH - 30) * rate / top:.1f}" for at, rate in rates)
    return (
        f"<text x=0 y=24>answers per second</text><text x=0 y=40>(top: {top:.0f})</text>"
        f"<polyline points='{points}' fill=none stroke='#1e8449' stroke-width=1.2 />"
    )


def _lanes(faults: Sequence[Mapping[str, Any]], kinds: Sequence[str], x: Any) -> str:
    drawn = []
    for number, kind in enumerate(kinds):
        y = GRAPH + number * LANE
        colour = COLOURS.get(kind.partition("_")[0], "#34495e")
        drawn.append(f"<text x=0 y={y + 12}>{_safe(kind)}</text>")
        for fault in faults:
            if fault["kind"] == kind:
                width = max(1.5, x(fault["until"]) - x(fault["at"]))
                about = _safe(f"{fault['target']} {fault.get('detail', '')}")
                drawn.append(
                    f"<rect x={x(fault['at']):.1f} y={y + 3} width={width:.1f} height={LANE - 5} "
                    f"fill='{colour}' opacity=0.6><title>{about}</title></rect>"
                )
    return "".join(drawn)


def _away(spans: Sequence[tuple[str, float, float]], rows: Sequence[str], x: Any) -> str:
    """When each broker was away, in a lane of its own."""
    return "".join(
        f"<rect x={x(since):.1f} y={GRAPH + rows.index(who) * LANE + 3} "
        f"width={max(1.5, x(until) - x(since)):.1f} height={LANE - 5} fill='#000' opacity=0.7>"
        f"<title>{_safe(who)} away</title></rect>"
        for who, since, until in spans
    )


def _seconds(first: float, last: float, x: Any, height: int) -> str:
    step = next((step for step in (5, 10, 30, 60, 120, 300) if (last - first) / step <= 16), 600)
    marks = range(0, int(last - first) + 1, step)
    return "".join(f"<text x={x(first + at):.0f} y={height - 4}>{at} s</text>" for at in marks)


def _safe(text: str) -> str:
    return html.escape(str(text))
