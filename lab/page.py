"""The page of a run: one file with its pictures in it, every number from that run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lab import plots, words
from lab.guarantees import GUARANTEES
from lab.plan import DROP_RATE, RESENT_OF
from lab.run import SENT_PER_S, Outcome

TEMPLATES: Final = Path(__file__).parent / "templates"


def write_page(path: Path, outcomes: Sequence[Outcome], seconds: float) -> Path:
    """Write the page of these outcomes; `seconds` is what the whole run took."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"euros": words.euros, "whole": lambda number: f"{number:,.0f}"}
    text = environment.get_template("page.html").render(
        chapters=[_chapter([one for one in outcomes if one.guarantee is each]) for each in GUARANTEES
                  if any(one.guarantee is each for one in outcomes)],
        seeds=sorted({one.seed for one in outcomes}),
        payments=max(one.payments for one in outcomes), events=max(one.sent for one in outcomes),
        seconds=seconds, at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        resent_of=RESENT_OF, drop_percent=int(100 * DROP_RATE), sent_per_s=SENT_PER_S,
        kinds=plots.KINDS, money=plots.money(outcomes), speed=plots.speed(outcomes),
    )  # fmt: skip
    path.write_text(text, encoding="utf-8")
    return path


def _chapter(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the template says about one guarantee: the sums over the seeds, then each seed."""
    return {
        "guarantee": outcomes[0].guarantee,
        "harmless": not any(words.harms(one) for one in outcomes),
        "runs": [
            {
                "outcome": one,
                "harms": words.harms(one),
                "verdict": words.verdict(one),
                "readers": words.read_uncommitted_harm(one),
                "curve": plots.curve(one),
                "p50": one.percentile_ms(0.5),
                "p99": one.percentile_ms(0.99),
            }
            for one in outcomes
        ],
    }
