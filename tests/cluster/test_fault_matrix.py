"""Every fault of brokers at every point: the table in docs/torture.md comes from a run of this file.

`CLUSTER_TABLE=file python -m pytest -m slow tests/cluster/test_fault_matrix.py` appends its rows to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import broker_faults
from support.halts import COMMIT_POINTS, OPENING_POINTS
from support.under_fault import VICTIMS, BehindProxies, InCombinedMode, bound_slack

LOST_S = 30.0
CUT_S = 15.0
POINTS = (*COMMIT_POINTS, *OPENING_POINTS)
# every point once before any comes again, each time with another victim: a run cut short has seen them all
DEATHS = [
    (point, VICTIMS[(number + shift) % len(VICTIMS)])
    for shift in range(len(VICTIMS)) for number, point in enumerate(POINTS)
]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def under(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BehindProxies]:
    """Three brokers behind proxies, two workers, for all cases."""
    with BehindProxies(tmp_path_factory.mktemp("matrix"), "matrix", slack=bound_slack()) as one:
        yield one


def test_the_quorum_of_combined_nodes_is_gone(tmp_path: Path) -> None:
    """Two of three nodes down: no leader can be chosen, nothing is written; then all is answered.

    First of all here: it has a cluster of its own, which need not run beside the others' one.
    """
    with InCombinedMode(tmp_path, "combined", slack=bound_slack()) as under:
        broker_faults.quorum_lost(under, LOST_S)
        under.check()


def test_a_frozen_broker(under: BehindProxies) -> None:
    """SIGSTOP for ten times its session."""
    broker_faults.frozen(under, LOST_S)


@pytest.mark.parametrize("silent", [False, True], ids=["resets", "silence"])
def test_a_broker_that_clients_cannot_reach(under: BehindProxies, silent: bool) -> None:
    """Its peers see it, so nothing moves."""
    broker_faults.cut_from_clients(under, CUT_S, silent=silent)


@pytest.mark.parametrize("silent", [False, True], ids=["resets", "silence"])
def test_a_broker_that_its_peers_cannot_reach(under: BehindProxies, silent: bool) -> None:
    """Its partitions move, and it does not know."""
    broker_faults.cut_from_peers(under, CUT_S, silent=silent)


def test_a_broker_that_its_peers_cannot_reach_while_tasks_are_opened(under: BehindProxies) -> None:
    """What it says of offsets and ends of logs is the past: no task is opened on that."""
    broker_faults.cut_from_peers(under, CUT_S, openings=True)


def test_a_full_disk(under: BehindProxies) -> None:
    """The broker ends; payments go on."""
    broker_faults.disk_full(under)


def test_one_broker_of_three_is_left(under: BehindProxies) -> None:
    """`min.insync.replicas` is lost for half a minute."""
    broker_faults.min_insync_lost(under, LOST_S)


def test_the_controller_is_gone(under: BehindProxies) -> None:
    """For half a minute."""
    broker_faults.controller_lost(under, LOST_S)


@pytest.mark.parametrize("kill", [False, True], ids=["clean-stop", "sigkill"])
def test_a_rolling_restart(under: BehindProxies, kill: bool) -> None:
    """One broker after the other, each when all replicas are in sync."""
    broker_faults.rolling(under, kill=kill)


@pytest.mark.parametrize(("point", "victim"), DEATHS)
def test_a_leader_dies_at_each_point(under: BehindProxies, point: str, victim: str) -> None:
    """SIGKILL while a task is at the point; it stays down until every partition has answered again."""
    broker_faults.killed_at(under, point, victim)


def test_in_the_end_the_books_agree(under: BehindProxies) -> None:
    """After all of these: results, ledger, counters, order; tables on disk = fold of the changelog."""
    under.check()
