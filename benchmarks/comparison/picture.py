"""The comparison drawn: bars of the median, a dot for each round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.comparison.plan import FIGURES, OURS, Configuration
from benchmarks.comparison.records import Comparison, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS_COLOUR: Final = "#00897b"
PEERS_COLOUR: Final = "#90a4ae"
PANELS: Final = (
    ("Gateway 0 ms: results/s", "drain", 0, "results_per_s"),
    ("Gateway 0 ms: CPU us running", "drain", 0, "running_cpu_us"),
    ("Gateway 50 ms: results/s", "drain", 50, "results_per_s"),
    ("Gateway 50 ms: CPU us running", "drain", 50, "running_cpu_us"),
    ("200 payments/s: latency p50, ms", "latency", 0, "p50_ms"),
    ("200 payments/s: latency p99, ms", "latency", 0, "p99_ms"),
    ("200 payments/s: CPU us", "latency", 0, "cpu_us"),
    ("200 payments/s: broker CPU us", "latency", 0, "broker_cpu_us"),
)
"""Title, kind and gateway of the configurations, figure; two panels of the same configurations a row."""
COLUMNS: Final = 2


def draw(found: Comparison, configurations: Sequence[Configuration], folder: Path) -> list[Path]:
    """Write speed.svg and speed.png, from runs whose books are right; the files."""
    import matplotlib as mpl  # takes a second to load, in each lane of the tests, too
    from matplotlib.figure import Figure as Drawing

    good = [run for run in found.runs if not run.faults()]
    shown = [one for one in configurations if any(run.configuration == one.name for run in good)]
    of_panels = [[one for one in shown if (one.kind, one.gateway_ms) == panel[1:3]] for panel in PANELS]
    panels = [(panel, those) for panel, those in zip(PANELS, of_panels, strict=True) if those]
    heights = [1 + len(those) for _, those in panels[::COLUMNS]] or [1]
    drawing = Drawing(figsize=(12, 2 + sum(heights) * 0.4), layout="constrained")
    grid = drawing.subplots(len(heights), COLUMNS, height_ratios=heights, squeeze=False).flat
    for ((title, _, _, figure), those), axes in zip(panels, grid, strict=False):
        _panel(axes, title, those, good, figure)
    drawing.suptitle(f"Payments exactly once ({found.about.get('measured', '')})", fontsize=11)
    files = [folder / "speed.svg", folder / "speed.png"]
    # the same figures give the same file
    with mpl.rc_context({"svg.hashsalt": "speed"}):
        drawing.savefig(files[0], metadata={"Date": None})
        drawing.savefig(files[1], dpi=110)
    return files


def _panel(
    axes: Axes, title: str, configurations: Sequence[Configuration], runs: Sequence[Run], figure: str
) -> None:
    way = "more" if FIGURES[figure].more_is_better else "less"
    axes.set_title(f"{title} ({way} is better)", fontsize=10, loc="left")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    for one in configurations:
        its = [run.figures for run in runs if run.configuration == one.name]
        values = [figures[figure] for figures in its if figure in figures]
        if not values:
            continue
        colour = OURS_COLOUR if one.peer == OURS else PEERS_COLOUR
        bar = axes.barh(one.name.rpartition(", ")[0], statistics.median(values), color=colour)
        axes.bar_label(bar, fmt=lambda value: f" {value:,.0f}".replace(",", " "), fontsize=9)
        axes.plot(values, [one.name.rpartition(", ")[0]] * len(values), "o", color="#263238", markersize=3)
    axes.margins(x=0.15)
