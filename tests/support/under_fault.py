"""A cluster that faults can be done to, a fleet of workers on it, and what one fault did to the payments."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from support.fleet import ClusterFleet
from support.halts import Halts
from support.small_disk import SmallDisk
from support.until import until
from support.watching import for_an_operator

from broker.cluster import BaseCluster, Node
from broker.combined import CombinedCluster
from broker.leaders import group_coordinator, leader, transaction_coordinator
from streamsocial_billing.settings import PAYMENTS
from torture.network import ProxiedCluster

CLIENTS = "apps"
SMALL_DISK_OF = 3
START_WITHIN_S = 300.0
"""A broker took 70 s on two cores with a load of 50."""
PATIENCE = 4.0
"""How much longer than its bound a wait lasts, so that the figure is known where the bound is missed."""
TABLE_FILE = "CLUSTER_TABLE"
"""The variable that names the file to which each case appends its row of docs/torture.md."""
SLACK = "CLUSTER_SLACK"
"""The variable by which somebody says how much longer than on a quiet machine a slow run may take."""
VICTIMS = ("source", "changelog", "transaction coordinator", "group coordinator")


def bound_slack() -> float:
    """1: the bounds of a quiet machine, unless CLUSTER_SLACK says otherwise."""
    return float(os.environ.get(SLACK) or 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault did; times in seconds.

    pause_s     the longest time without a result in any partition, from the load's begin to its end
    answered_s  from the fault's end to the last answer
    blocked     reasons for which a task was seen blocked meanwhile
    """

    pause_s: float
    answered_s: float
    blocked: list[str]


class UnderFault:
    """Three brokers and two workers on them; for a `with`. `fault` does one case."""

    cluster: BaseCluster

    def __init__(self, folder: Path, name: str, *, slack: float) -> None:
        self.slack = slack
        self._folder = folder
        self._name = name
        self._cases = 0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            url = self._start_kafka(self._folder / "kafka", undo)
            self.fleet = ClusterFleet(self.cluster, self._folder / "fleet", self._name, BILLING_BROKER=url)
            self.halts = Halts(self._folder / "halts")
            for worker in self.fleet.workers:
                worker.program = self.halts.program
            undo.enter_context(self.fleet)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.__exit__(kind, error, trace)

    @contextmanager
    def fault(self, case: str, must_hold: str, *, settled_within_s: float = 30.0) -> Iterator[None]:
        """Load before, during and after what the `with` does; in the end all is healed, and the books agree.

        Nobody must be needed: no task stopped for an operator, no worker ended by itself.
        """
        self._heal()
        fleet, self._cases = self.fleet, self._cases + 1
        exits, lines = len(fleet.watcher.exits), self._lines()
        began = time.monotonic()
        try:
            with fleet.load(self._cases, ways=("library", "POST")):
                self.wait_moving()
                try:
                    yield
                finally:
                    self._heal()
                last_fault_at = time.monotonic()
            answered_s = fleet.settle(last_fault_at, PATIENCE * settled_within_s)
            fleet.check_every_payment()
            assert [] == fleet.watcher.exits[exits:]
            assert [] == self._lines()[len(lines):]
            assert answered_s <= self.slack * settled_within_s
        except BaseException as failure:
            self._tell(case, must_hold, f"FAILED: {str(failure).splitlines()[0][:120]}", began)
            raise
        blocked = sorted({one.why for one in fleet.watcher.blocked() if one.at > began})
        outcome = Outcome(max(fleet.pauses().values(), default=0.0), answered_s, blocked)
        self._tell(case, must_hold, outcome, began)

    def wait_moving(self, within_s: float = 30.0) -> None:
        """Return when every partition has a result that came after this call."""
        since, arrivals = time.monotonic(), self.fleet.arrivals
        partitions = range(self.fleet.settings.partitions)

        def behind() -> list[int]:
            return [one for one in partitions if not arrivals[one] or arrivals[one][-1] <= since]

        until(lambda: not behind(), "a result in every partition", PATIENCE * within_s)

    def victim(self, what: str, partition: int) -> Node:
        """The broker that leads one of VICTIMS for a task."""
        settings, ask = self.fleet.settings, self.cluster.bootstrap
        find: dict[str, Callable[[], int | None]] = {
            "source": lambda: leader(ask, settings.topic(PAYMENTS), partition),
            "changelog": lambda: leader(ask, settings.changelog("payments"), partition),
            "transaction coordinator": lambda: transaction_coordinator(
                ask, f"{settings.app_id}-tasks-{partition}"
            ),
            "group coordinator": lambda: group_coordinator(ask, settings.app_id),
        }
        until(lambda: find[what]() is not None, f"somebody leads the {what}")
        number = find[what]()
        assert number is not None
        return self.cluster.brokers[number - 1]

    def check(self) -> None:
        """The whole books: results, ledger, counters, order; tables on disk = fold of the changelog."""
        self.fleet.check()

    def _start_kafka(self, folder: Path, undo: ExitStack) -> str:
        """Make and start `cluster`; its address for the workers. What ends it goes on the stack."""
        raise NotImplementedError

    def _heal(self) -> None:
        """Everything runs and reaches everything, all replicas are in sync."""
        for node in self.cluster.nodes:
            node.resume()
        self.cluster.start(START_WITHIN_S)
        self.fleet.wait_in_sync(START_WITHIN_S)

    def _lines(self) -> list[str]:
        return [f"{w.name}: {line}" for w in self.fleet.workers for line in for_an_operator(w.log_file)]

    def _tell(self, case: str, must_hold: str, result: Outcome | str, began: float) -> None:
        took = time.monotonic() - began
        if isinstance(result, Outcome):
            said = f"held | {result.pause_s:.1f} | {result.answered_s:.1f}"
            print(f"{case}: blocked meanwhile: {result.blocked}")
        else:
            said = f"{result} | |"
        row = f"| {case} | {must_hold} | {said} | {took:.0f} |"
        print(row)
        file = os.environ.get(TABLE_FILE)
        if file:
            with Path(file).open("a", encoding="utf-8") as table:
                table.write(row + "\n")


class BehindProxies(UnderFault):
    """Three brokers and a controller behind proxies, the third broker on a small disk."""

    def _start_kafka(self, folder: Path, undo: ExitStack) -> str:
        self.disk = SmallDisk(folder / f"broker-{SMALL_DISK_OF}")
        undo.callback(self.disk.close)
        self.network = undo.enter_context(ProxiedCluster(folder, [CLIENTS]))
        self.cluster = self.network.cluster
        self.controller = self.network.cluster.controller
        addresses = self.network.cluster.bootstrap_for(CLIENTS).split(",")
        return ";".join(f"kafka://{address}" for address in addresses)

    def _heal(self) -> None:
        self.network.heal()
        self.disk.free(self.cluster.brokers[SMALL_DISK_OF - 1])
        super()._heal()


class InCombinedMode(UnderFault):
    """Three nodes, broker and controller each."""

    def _start_kafka(self, folder: Path, undo: ExitStack) -> str:
        self.cluster = CombinedCluster(folder)
        undo.callback(self.cluster.stop)
        self.cluster.start(START_WITHIN_S)
        return self.cluster.url
