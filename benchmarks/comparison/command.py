"""`python -m benchmarks`: bring the peers, run the rounds, tell, draw, keep the raw figures."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.comparison import plan
from benchmarks.comparison.bring import bring
from benchmarks.comparison.measure import Stage, measure
from benchmarks.comparison.picture import draw
from benchmarks.comparison.plan import Configuration, Plan
from benchmarks.comparison.records import Comparison, Run
from benchmarks.comparison.rounds import run_rounds
from benchmarks.comparison.tables import failures, told
from broker import BrokerError, LocalBroker
from broker.signals import exit_by_signal, stop_with
from processes import ROOT

RESULTS: Final = ROOT / "data" / "bench"
RAW: Final = "speed.json"
PAGE: Final = ROOT / "docs" / "speed.md"
PICTURES: Final = ROOT / "docs" / "pictures"
BEGINS, ENDS = "<!-- figures: begin -->", "<!-- figures: end -->"
SHORT_MINUTES: Final = 14.0
FULL_MINUTES: Final = 180.0
BROKER_SETTINGS: Final = {
    # Kafka's own defaults, where the development broker makes itself small
    "num.partitions": "4", "offsets.topic.num.partitions": "50", "transaction.state.log.num.partitions": "50",
    "num.network.threads": "3", "num.io.threads": "8", "group.min.session.timeout.ms": "6000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000",
    # a peer may leave the making of its topics to the broker
    "auto.create.topics.enable": "true",
}  # fmt: skip


def compare(words: Sequence[str]) -> int:
    """Run the comparison; 1 where any run's books are wrong or it failed, 2 where something is missing."""
    args = _arguments(words)
    stop_with(exit_by_signal)
    began, folder = time.monotonic(), args.to / time.strftime("%Y%m%d-%H%M%S")
    try:
        chosen = _chosen(args)
        bring({one.peer for one in chosen.configurations}, _say)
        (folder / "logs").mkdir(parents=True)
        with _stage(folder, chosen) as stage:
            found = _run(chosen, args.rounds, began + 60 * args.minutes, stage)
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        for name in ("kafka", "state"):
            shutil.rmtree(folder / name, ignore_errors=True)
    (folder / RAW).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    _say(f"{len(found.runs)} runs in {(time.monotonic() - began) / 60:.1f} minutes\n")
    return _report(found, folder, docs=args.docs)


def report(words: Sequence[str]) -> int:
    """Tell and draw what an earlier comparison found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=report.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="default: the newest below data/bench")
    parser.add_argument("--docs", action="store_true", help="also put table and picture into docs")
    args = parser.parse_args(words)
    folder = args.folder or max((file.parent for file in RESULTS.glob(f"*/{RAW}")), default=None)
    if folder is None:
        print(f"no comparison below {RESULTS}: python -m benchmarks makes one", file=sys.stderr)
        return 2
    found = msgspec.json.decode((folder / RAW).read_bytes(), type=Comparison)
    return _report(found, folder, docs=args.docs)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=compare.__doc__)
    parser.add_argument("--full", action="store_true", help="200 000 payments a backlog, more peers")
    parser.add_argument("--rounds", type=int, default=3, help="at most so many, as time allows (3)")
    parser.add_argument("--minutes", type=float, help="begin no round that would end later (14; full: 180)")
    parser.add_argument("-n", type=int, help="payments of every backlog instead of the plan's")
    parser.add_argument("--seconds", type=int, help="of steady load instead of the plan's")
    parser.add_argument("--only", nargs="+", help="configurations whose names contain one of these")
    parser.add_argument("--to", type=Path, default=RESULTS, help="where results are kept (data/bench)")
    parser.add_argument("--docs", action="store_true", help="also put table and picture into docs")
    args = parser.parse_args(words)
    args.minutes = args.minutes or (FULL_MINUTES if args.full else SHORT_MINUTES)
    return args


def _chosen(args: argparse.Namespace) -> Plan:
    """The plan of these arguments; raises BrokerError where nothing is left of it."""
    chosen = plan.FULL if args.full else plan.SHORT
    if args.only:
        named = [one for one in chosen.configurations if any(word in one.name for word in args.only)]
        if not named:
            raise BrokerError(f"no configuration has {' or '.join(args.only)} in its name")
        chosen = replace(chosen, configurations=named)
    if args.n:
        chosen = replace(chosen, fast=args.n, slow=args.n, warm_up=args.n)
    return replace(chosen, seconds=args.seconds or chosen.seconds)


@contextmanager
def _stage(folder: Path, chosen: Plan) -> Iterator[Stage]:
    """A broker of our own, or the one that KAFKA names."""
    bootstrap = os.environ.get("KAFKA")
    if bootstrap:
        yield Stage(bootstrap, 0, folder, chosen.rate, chosen.seconds)
        return
    with LocalBroker(folder / "kafka", port=0, settings=BROKER_SETTINGS, lasting=True) as broker:
        yield Stage(broker.bootstrap, broker.pid, folder, chosen.rate, chosen.seconds)


def _run(chosen: Plan, rounds: int, ends_at: float, stage: Stage) -> Comparison:
    def one(configuration: Configuration, count: int, number: int) -> Run:
        _say(f"round {number}: {configuration.name}, {count} payments ...")
        found = measure(configuration, count, number, stage)
        _say(f"  {'; '.join(found.faults()) or found.figures}")
        return found

    began = time.strftime("%Y-%m-%d %H:%M")
    runs = list(run_rounds(chosen, rounds, ends_at, one))
    return Comparison(_about(chosen, began, runs), runs)


def _about(chosen: Plan, began: str, runs: Sequence[Run]) -> dict[str, str]:
    """What has to be known to repeat it."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    loads = [run.load_average for run in runs]
    return {
        "measured": f"{began}, commit {commit.stdout.strip() or 'unknown'}, rounds: {runs[-1].round}",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}; broker, peer, sender and reader on it",
        "load average before the runs": f"{min(loads)} to {max(loads)}",
        "sizes": f"{chosen.fast} payments of backlog at 0 ms, {chosen.slow} at 50 ms; "
        f"{chosen.warm_up} before {chosen.seconds} s at {chosen.rate}/s; a tenth sent again",
    }


def _report(found: Comparison, folder: Path, *, docs: bool) -> int:
    """Print the table, draw it; 1 where a run counts for nothing."""
    text = told(found, plan.FULL.configurations, plan.FULL.pairs)
    (folder / "speed.md").write_text(text)
    print(text)
    for file in draw(found, plan.FULL.configurations, folder):
        print(file)
    if docs:
        draw(found, plan.FULL.configurations, PICTURES)
        PAGE.write_text(filled(PAGE.read_text(), f"![The comparison, drawn](pictures/speed.svg)\n\n{text}"))
    return 1 if failures(found.runs) else 0


def filled(page: str, text: str) -> str:
    """The page with this between its marks."""
    before, _, rest = page.partition(BEGINS)
    return f"{before}{BEGINS}\n\n{text}\n{ENDS}{rest.partition(ENDS)[2]}"


def _say(line: str) -> None:
    print(line, flush=True)
