"""The comparison in words: what failed, where we stand worst, then every figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.comparison.plan import FIGURES, LATENCY, THROUGHPUT, Configuration, Pair
from benchmarks.comparison.ratios import ratios
from benchmarks.comparison.records import Comparison, Run


def told(found: Comparison, configurations: Sequence[Configuration], pairs: Sequence[Pair]) -> str:
    """All of it as Markdown; the worst truth leads."""
    drains = [one.name for one in configurations if one.kind == "drain"]
    steady = [one.name for one in configurations if one.kind == "latency"]
    parts = [
        _failures(found.runs),
        _section("Ours divided by the peer's, worst first", ratio_rows(found.runs, pairs)),
        _section("Backlog: each round's figure", figure_rows(found.runs, drains, THROUGHPUT)),
        _section("Steady load: each round's figure", figure_rows(found.runs, steady, LATENCY)),
        "\n".join(f"- {name}: {value}" for name, value in found.about.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def failures(runs: Iterable[Run]) -> list[str]:
    """A line for each run whose figures count for nothing."""
    return [
        f"{run.configuration}, round {run.round}: {'; '.join(run.faults())} (log: {run.log}*)"
        for run in runs
        if run.faults()
    ]


def ratio_rows(runs: Iterable[Run], pairs: Iterable[Pair]) -> list[list[str]]:
    """Head, then a row for each ratio."""
    rows = [["ours", "peer", "figure", "better is", "ratio", "by round"]]
    for one in ratios(runs, pairs):
        figure = FIGURES[one.figure]
        way = "more" if figure.more_is_better else "less"
        by_round = " ".join(f"{value:.2f}" for value in one.by_round)
        rows.append([one.pair.ours, one.pair.peer, figure.title, way, f"{one.median:.2f}", by_round])
    return rows


def figure_rows(runs: Sequence[Run], names: Sequence[str], figures: Sequence[str]) -> list[list[str]]:
    """Head, then a row for each configuration that was run; wrong books are marked in the last column."""
    rows = [["configuration", "payments", *(FIGURES[figure].title for figure in figures), "books"]]
    for name in names:
        its = [run for run in runs if run.configuration == name]
        if not its:
            continue
        cells = [_cell(figure, its) for figure in figures]
        wrong = sum(1 for run in its if run.faults())
        books = f"WRONG in {wrong} of {len(its)}" if wrong else "right"
        rows.append([name, f"{its[0].payments:,}".replace(",", " "), *cells, books])
    return rows


def _cell(figure: str, runs: Iterable[Run]) -> str:
    """Each round's; one - where none has it."""
    values = [run.figures.get(figure) for run in runs]
    return " ".join(map(_number, values)) if any(value is not None for value in values) else "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _failures(runs: Iterable[Run]) -> str:
    lines = failures(runs)
    count = "1 run counts" if len(lines) == 1 else f"{len(lines)} runs count"
    head = f"FAILED: {count} for nothing, no ratio is made of such a run"
    return "\n".join([head, "", *(f"- {line}" for line in lines)]) if lines else ""


def _section(title: str, rows: Sequence[Sequence[str]]) -> str:
    return f"### {title}\n\n{markdown(rows)}" if len(rows) > 1 else ""


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are aligned, so that it reads well in a terminal, too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    filled = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in filled]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
