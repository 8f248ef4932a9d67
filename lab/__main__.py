"""The command line: `python -m lab`; exit code 0 if the product did no harm, 1 if it did or nothing ran."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console

from broker import BrokerError, LocalBroker
from broker.signals import exit_by_signal, stop_with
from lab.display import Display
from lab.guarantees import BY_KEY, GUARANTEES, Guarantee
from lab.page import write_page
from lab.plan import plan
from lab.run import LabFailed, Outcome, Run
from lab.stage import Stage
from lab.words import harms
from processes import ROOT

DEFAULT_OUT: Final = ROOT / "data" / "lab"
MARK: Final = "lab.folder"
PAYMENTS: Final = 900
LEAST_PAYMENTS, MOST_PAYMENTS = 300, 100_000


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; where the page lies is the last line."""
    chosen = _arguments(arguments)
    stop_with(exit_by_signal)
    console = Console()
    try:
        _fresh(chosen.out)
        if chosen.crash_at or chosen.step:
            from lab.opened import opened

            return opened(chosen.out, console, crash_at=chosen.crash_at)
        return _compare(chosen, console)
    except (BrokerError, LabFailed, FileExistsError) as error:
        console.print(f"lab: {error}", style="bold red", markup=False, highlight=False)
        return 1


def _compare(chosen: argparse.Namespace, console: Console) -> int:
    wanted = [BY_KEY[key] for key in chosen.only] if chosen.only else list(GUARANTEES)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with LocalBroker(chosen.out / "kafka", 0) as kafka:
        for seed in chosen.seed:
            console.print(f"seed {seed}: {chosen.payments} payments", highlight=False)
            with Display(console, wanted) as display:
                for guarantee in wanted:
                    outcomes.append(_one(chosen, kafka.url, guarantee, seed, display))
                    display.done(outcomes[-1])
    seconds = time.monotonic() - began
    page = write_page(chosen.out / "lab.html", outcomes, seconds)
    harmed = [one for one in outcomes if one.guarantee.key == "ours" and harms(one)]
    for one in harmed:
        text = f"this project did harm with seed {one.seed}: {'; '.join(harms(one))}"
        console.print(text, style="bold red", highlight=False, soft_wrap=True)
    console.print(f"{seconds:.0f} s; the page: {page}", highlight=False, soft_wrap=True)
    return 1 if harmed else 0


def _one(
    chosen: argparse.Namespace, broker: str, guarantee: Guarantee, seed: int, display: Display
) -> Outcome:
    folder = chosen.out / f"{seed}-{guarantee.key}"
    named = {
        "BILLING_APP_ID": f"lab-{seed}-{guarantee.key}", "BILLING_TOPIC_PREFIX": f"{seed}-{guarantee.key}-"
    }  # fmt: skip
    with Stage(guarantee, folder, broker, named) as stage:
        return Run(stage, plan(seed, chosen.payments), display.look).play()


def _fresh(folder: Path) -> None:
    """An empty folder; one that holds something else is not touched."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise FileExistsError(f"{folder} holds something else: choose another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    from lab.opened import POINTS

    text = "The delivery guarantees under the same faults; exit code 1 if the product did harm."
    parser = argparse.ArgumentParser(prog="streamsocial-billing lab", description=text)
    parser.add_argument(
        "--seed", type=_whole(0, 2**31), nargs="+", default=[1], help="one or more; default: 1"
    )
    parser.add_argument(
        "--payments", type=_whole(LEAST_PAYMENTS, MOST_PAYMENTS), default=PAYMENTS,
        help="different payments; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=BY_KEY, nargs="+", metavar="GUARANTEE",
        help=f"these alone: {', '.join(BY_KEY)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    opened = parser.add_mutually_exclusive_group()
    opened.add_argument(
        "--crash-at", choices=POINTS, metavar="POINT",
        help="kill a worker at this point of a commit, show what is where, let it recover, show it again: "
        f"{', '.join(POINTS)}",
    )  # fmt: skip
    opened.add_argument("--step", action="store_true", help="go through one commit point by point")
    chosen = parser.parse_args(arguments)
    chosen.out = chosen.out.absolute()
    return chosen


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return read


if __name__ == "__main__":
    sys.exit(main())
