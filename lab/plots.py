"""The plots of the page as SVG: money per guarantee, revenue over time, latency and throughput."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, log10
from typing import Final

from markupsafe import Markup

from lab.run import Outcome
from lab.words import euros

LOST, AGAIN, RESENT, DENIED, TWICE, STOOD = (
    "#6c3483", "#c0392b", "#e67e22", "#2471a3", "#b7950b", "#8a94a0",
)  # fmt: skip
KINDS: Final = (
    ("lost", "lost", LOST),
    ("twice_by_handling", "charged again by the consumer", AGAIN),
    ("twice_by_sending", "charged twice because it was sent twice", RESENT),
    ("denied", "charged, but no result says so", DENIED),
    ("reported_twice", "reported more than once", TWICE),
    ("unanswered", "not handled: it stood still", STOOD),
)
"""Field of Books, words, colour."""
WIDTH: Final = 720


def money(outcomes: Sequence[Outcome]) -> Markup:
    """Bars: what each guarantee cost, in cents, summed over the seeds."""
    titles = list(dict.fromkeys(one.guarantee.title for one in outcomes))
    sums = {
        title: [
            sum(getattr(one.books, field).minor for one in outcomes
                if one.guarantee.title == title and one.books is not None and _counts(one, field))
            for field, _, _ in KINDS
        ]
        for title in titles
    }  # fmt: skip
    most = max((sum(parts) for parts in sums.values()), default=0) or 1
    rows = []
    for title in titles:
        total = sum(sums[title])
        parts = "".join(
            f'<i style="width:{72 * minor / most:.2f}%;background:{colour}" title="{escape(said)}: '
            f'{euros(minor)}"></i>'
            for (_, said, colour), minor in zip(KINDS, sums[title], strict=True) if minor
        )  # fmt: skip
        label = euros(total) if total else "nothing"
        rows.append(f'<dt>{escape(title)}</dt><dd class="bar">{parts}<span>{label}</span></dd>')
    return Markup(f"<dl>{''.join(rows)}</dl>")  # noqa: S704 - every text in it is escaped


def _counts(outcome: Outcome, field: str) -> bool:
    """What a program that stood still has not handled is not lost, and a lost one not merely unanswered."""
    return outcome.stood_still if field == "unanswered" else not (outcome.stood_still and field == "lost")


def curve(outcome: Outcome) -> Markup:
    """Revenue over time as both readers report it, with what happened when."""
    height, left, bottom = 220, 8, 26
    points = outcome.curve
    longest = max((at for at, _, _ in points), default=1.0) or 1.0
    due = outcome.books.due if outcome.books is not None else 1
    most = max([due, *(minor for _, *both in points for minor in both)])

    def x(at_s: float) -> float:
        return left + (WIDTH - 2 * left) * max(0.0, at_s) / longest

    def y(minor: float) -> float:
        return 14 + (height - bottom - 14) * (1 - minor / most)

    parts = [_svg(WIDTH, height, f"{outcome.guarantee.title}: revenue as reported, over time")]
    if outcome.books is not None:
        parts.append(f'<path d="M{left} {y(due):.1f}H{WIDTH - left}" class="due"/>')
        parts.append(f'<text x="{left}" y="{y(due) - 4:.1f}">due: {euros(due)}</text>')
    for event in outcome.events:
        at = x(event.at_s)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="14" y2="{height - bottom}" class="event">'
            f"<title>{event.at_s:.1f} s: {escape(event.what)}</title></line>"
        )
    for index, name in ((2, "uncommitted"), (1, "committed")):
        path = " ".join(f"{x(one[0]):.1f},{y(one[index]):.1f}" for one in points)
        parts.append(f'<polyline points="{path}" class="{name}"/>')
    for at_s in _ticks(longest):
        parts.append(f'<text x="{x(at_s):.1f}" y="{height - 8}" class="tick">{at_s:g} s</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text in it is escaped


def speed(outcomes: Sequence[Outcome]) -> Markup:
    """Latency (median to 99 %, logarithmic) and throughput of the backlog, for each guarantee, each seed."""
    measured = [one for one in outcomes if one.latencies_ms]
    most_ms = 10 ** ceil(log10(max((one.percentile_ms(0.99) or 1 for one in measured), default=1) + 1))

    def percent(ms: float) -> float:
        return 100 * log10(max(1.0, ms)) / log10(most_ms)

    rows = []
    for one in measured:
        p50, p99 = one.percentile_ms(0.5) or 0.0, one.percentile_ms(0.99) or 0.0
        rate = "no backlog was handled" if one.drained_per_s is None else f"{one.drained_per_s:,.0f} a second"
        text = f"median {p50:,.0f} ms, 99 %: {p99:,.0f} ms; backlog: {rate}"
        rows.append(
            f"<dt>{escape(one.guarantee.title)}, seed {one.seed} <span>{text}</span></dt>"
            f'<dd class="range"><b style="left:{percent(p50):.1f}%;width:{percent(p99) - percent(p50):.1f}%">'
            f'</b><i style="left:{percent(p50):.1f}%"></i></dd>'
        )
    marks = []
    ms = 1
    while ms <= most_ms:
        shown = f"{ms} ms" if ms < 1000 else f"{ms // 1000} s"
        marks.append(f'<span style="left:{percent(ms):.1f}%">{shown}</span>')
        ms *= 10
    scale = f'<dd class="scale">{"".join(marks)}</dd>'
    return Markup(f"<dl>{''.join(rows)}{scale}</dl>")  # noqa: S704 - every text in it is escaped


def _svg(width: int, height: int, title: str) -> str:
    said = escape(title)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}"><title>{said}</title>'


def _ticks(longest_s: float) -> Iterator[float]:
    step = 5.0 if longest_s < 60 else 20.0
    at = 0.0
    while at < longest_s:
        yield at
        at += step
