"""One run of the torture as the command line chose it, or the judgement of one that is over."""

from __future__ import annotations

import argparse

from rich.console import Console

from broker import BrokerError
from broker.signals import exit_by_signal, stop_with
from streamsocial_billing.kafka.committed import KafkaProblem
from torture.again import LeftBehind, brokers_of
from torture.display import Display
from torture.judge import judge
from torture.run import Conductor, RunFailed
from torture.schedule import plan
from torture.system import WORKERS, System


def run_as_chosen(chosen: argparse.Namespace) -> int:
    """The exit code; the folder with everything that the run left is named at the end."""
    stop_with(exit_by_signal)
    console = Console()
    try:
        clean = torture(chosen, console)
    except (KafkaProblem, BrokerError, FileExistsError, FileNotFoundError) as error:
        console.print(f"torture: {error}", style="bold red", markup=False, highlight=False)
        clean = False
    console.print(f"seed {chosen.seed}, everything it left: {chosen.out}", highlight=False)
    return 0 if clean else 1


def torture(chosen: argparse.Namespace, console: Console) -> bool:
    """One run with its report; True if it is clean."""
    module = "torture.plain_worker" if chosen.control else "torture.worker"
    if chosen.judge:
        with LeftBehind(
            chosen.out, chosen.seed, chosen.payments, module=module, brokers=brokers_of(chosen.out)
        ) as left:
            return judge(left, console).clean
    faults = plan(chosen.seed, chosen.faults, chosen.length, WORKERS, chosen.brokers)
    with System(
        chosen.out, chosen.seed, chosen.payments, module=module, mutant=chosen.mutant or "",
        brokers=chosen.brokers,
    ) as system:  # fmt: skip
        with Display(console, system) as display:
            conductor = Conductor(system, faults, chosen.length, display, patient=chosen.control)
            failed = _conducted(conductor, console)
        return judge(system, console).clean and not failed


def _conducted(conductor: Conductor, console: Console) -> bool:
    """True if the run did not come to its end: what it left is judged all the same."""
    try:
        conductor.run()
    except RunFailed as error:
        console.print(f"torture: {error}", style="bold red", markup=False, highlight=False)
        return True
    return False
