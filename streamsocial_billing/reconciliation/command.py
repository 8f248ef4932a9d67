"""The command `reconcile`: runs once, tells what it found, ends with 0 (clean), 1 (open breaks) or 2."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Final, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.console import Console
from rich.table import Table

from streamsocial_billing.domain.english import counted
from streamsocial_billing.domain.money import MINUS, shown_amount
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.configured import configured_gateways
from streamsocial_billing.gateways.settlement_lines import BadLine, millis
from streamsocial_billing.reconciliation.breaks import AGE_BUCKETS
from streamsocial_billing.reconciliation.report import not_checked_text
from streamsocial_billing.reconciliation.run import Books, Done, Wish, reconcile
from streamsocial_billing.reconciliation.showing import Bars
from streamsocial_billing.settings import Settings

CLEAN: Final = 0
OPEN_BREAKS: Final = 1
BAD_INPUT: Final = 2


def run_command(
    settings: Settings, wish: Wish, out: TextIO, err: TextIO,
    gateways: Mapping[str, Gateway] | None = None, books: Books | None = None,
) -> int:  # fmt: skip
    """Run, unless others are given with the gateways of the settings and our books on Kafka.

    Returns the exit code. Raises InputRefused, KafkaProblem.
    """
    asked = configured_gateways(settings) if gateways is None else gateways
    with Bars(Console(file=err)) as bars:
        done = reconcile(settings, asked, wish, bars, books)
    _tell(done, wish, Console(file=out, soft_wrap=True, highlight=False))
    return CLEAN if done.summary.clean else OPEN_BREAKS


def moment(text: str) -> int:
    """`now`, a date, or a date with time (UTC unless it says otherwise), in ms; raises ValueError."""
    if text == "now":
        return now_ms()
    try:
        return millis(text)
    except BadLine as bad:
        raise ValueError(str(bad)) from None


def zone_of(name: str) -> tzinfo:
    """A time zone by its name in the tz database, or UTC; raises ValueError."""
    try:
        return UTC if name.upper() in ("UTC", "Z") else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone is called {name!a} here: name one as in Europe/Berlin") from None


def _tell(done: Done, wish: Wish, console: Console) -> None:
    summary = done.summary
    for name in done.repeated_files:
        console.print(f"{name} was loaded before: it counts once")
    if summary.found:
        table = Table("class", "breaks", "at stake", *AGE_BUCKETS)
        for name, found in summary.found.items():
            sums = found.money.items()
            money = "\n".join(f"{shown_amount(amount, code, MINUS)} {code}" for code, amount in sums)
            ages = (str(found.ages.get(age) or "") for age in AGE_BUCKETS)
            table.add_row(name, str(found.count), money, *ages)
        console.print(table)
    if summary.not_ours:
        by_leg = {leg: sum(one["count"] for one in summary.not_ours if one["leg"] == leg)
                  for leg in ("list", "files")}  # fmt: skip
        console.print(
            f"not ours, listed for information: {by_leg['list']:,} in the gateways' lists, "
            f"{by_leg['files']:,} in settlement files"
        )
    for bridge in summary.bridges:
        for problem in bridge.problems():
            console.print(f"please report this error: the steps of the bridge do not add up: {problem}")
    for one in summary.not_checked:
        console.print(not_checked_text(one))
    checked = "clean, as far as it was checked" if summary.not_checked else "clean"
    verdict = checked if summary.clean else counted(summary.open, "open break")
    sent = f"{counted(done.repairs, 'repair')} sent"
    repairs = "nothing written to Kafka (--dry-run)" if wish.dry_run else sent
    console.print(f"{verdict}; {repairs}; the report is {wish.output / 'report.html'}")
