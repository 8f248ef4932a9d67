"""The report as one HTML page, for a person of finance: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import groupby, islice
from typing import IO, Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from streamsocial_billing.domain.money import MINUS, shown_amount
from streamsocial_billing.domain.times import iso_to_the_second
from streamsocial_billing.reconciliation.breaks import AGE_BUCKETS, MEANINGS, TIMING
from streamsocial_billing.reconciliation.bridge import BESIDE, STEPS, Bridge, Step
from streamsocial_billing.reconciliation.report import Summary, not_checked_text

LIST_MOST: Final = 500
"""Breaks in the page, open ones first; `breaks.csv` has all."""
_BEFORE_FILES: Final = frozenset(step.name for step in STEPS[:5]) | {step.name for step in BESIDE}
_SIGNS: Final = {"+": "+ ", "-": f"{MINUS} ", "=": "", "·": ""}
_LEGS: Final = (
    ("results", "payments with a result in our books"), ("movements", "rows of the gateways' lists"),
    ("lines", "settlement lines"), ("unhandled", "events that no worker had handled yet"),
)  # fmt: skip


def write_page(summary: Summary, breaks: Iterable[dict[str, Any]], link_base: str, file: IO[str]) -> None:
    """Write the page; `breaks` in the order in which they are listed, `link_base` a worker's address."""
    gateways = groupby(summary.bridges, key=lambda one: one.gateway)
    template = _environment().get_template("report.html")
    for part in template.generate(
        summary=summary, timing=summary.found.get(TIMING),
        not_checked=map(not_checked_text, summary.not_checked),
        bridges=[(gateway, list(group)) for gateway, group in gateways], ages=AGE_BUCKETS, meanings=MEANINGS,
        total=sum(one.count for one in summary.found.values()), most=LIST_MOST,
        breaks=islice(breaks, LIST_MOST), base=link_base.rstrip("/"), legs=_LEGS,
    ):  # fmt: skip
        file.write(part)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("streamsocial_billing.reconciliation"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {
        "when": _when, "quoted": lambda text: quote(text, safe=""), "thousands": "{:,}".format,
        "of_numbers": lambda heads: [f"#{head}" for head in heads],
    }  # fmt: skip
    made.globals |= {
        "shown": shown_amount, "iso": iso_to_the_second, "steps_of": _steps_of, "bridge_cell": _bridge_cell,
    }  # fmt: skip
    return made


def _steps_of(bridges: list[Bridge]) -> list[tuple[Step, str, str]]:
    """The rows of a bridge: its step, its class, its sign; a step in which nothing moved is left out."""
    rows = [(step, "total" if step.sign == "=" else "") for step in STEPS]
    rows += [(step, "beside") for step in BESIDE]
    return [
        (step, kind, _SIGNS[step.sign]) for step, kind in rows
        if kind == "total" or any(one.amounts[step.name] for one in bridges)
    ]  # fmt: skip


def _bridge_cell(step: Step, one: Bridge) -> str:
    if step.name not in _BEFORE_FILES and not one.settled:
        return ""
    amount = one.amounts[step.name]
    return shown_amount(amount, one.currency) if amount or step.sign == "=" else "\N{EN DASH}"


def _when(at_ms: int) -> str:
    return iso_to_the_second(at_ms).replace("T", " ").replace("Z", " UTC")
