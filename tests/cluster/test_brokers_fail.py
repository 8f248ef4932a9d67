"""What brokers do to workers, one case of each kind on one cluster; test_fault_matrix.py has them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import broker_faults
from support.under_fault import BehindProxies, InCombinedMode

BUSY = 3.0
"""How much longer than on a quiet machine things may take in a CI run."""
SHORT_S = 6.0
"""Longer than the session of a broker (3 s) and of a worker's group (6 s)."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def under(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BehindProxies]:
    """Three brokers behind proxies, two workers; in the end the whole books are compared."""
    with BehindProxies(tmp_path_factory.mktemp("fail"), "fail", slack=BUSY) as one:
        yield one


@pytest.mark.slow
def test_the_quorum_of_combined_nodes_is_gone(tmp_path: Path) -> None:
    """Two of three nodes down: no leader can be chosen, nothing is written; then all is answered.

    First of all here: it has a cluster of its own, which need not run beside the others' one.
    """
    with InCombinedMode(tmp_path, "combined", slack=BUSY) as under:
        broker_faults.quorum_lost(under, SHORT_S)
        under.check()


def test_the_transaction_coordinator_dies_between_offsets_and_commit(under: BehindProxies) -> None:
    """SIGKILL while a commit has sent all and not ended: the next coordinator decides, payments go on."""
    broker_faults.killed_at(under, "before_commit", "transaction coordinator")


def test_a_broker_that_is_frozen_beyond_its_session(under: BehindProxies) -> None:
    """SIGSTOP: connections stay open and say nothing; its partitions move, payments go on."""
    broker_faults.frozen(under, SHORT_S)


def test_a_broker_that_clients_cannot_reach(under: BehindProxies) -> None:
    """Its peers see it, so nothing moves: what it leads waits, and goes on when it can be reached."""
    broker_faults.cut_from_clients(under, SHORT_S)


def test_a_broker_that_its_peers_cannot_reach(under: BehindProxies) -> None:
    """It still answers clients, with the past: nothing that it says is taken for more than that."""
    broker_faults.cut_from_peers(under, SHORT_S)


def test_a_broker_whose_disk_is_full(under: BehindProxies) -> None:
    """It ends by itself; payments go on without it."""
    broker_faults.disk_full(under)


def test_one_broker_of_three_is_left(under: BehindProxies) -> None:
    """It refuses to write what it alone would hold, and shows what is committed; then all is answered."""
    broker_faults.min_insync_lost(under, SHORT_S)


def test_the_group_coordinator_dies_while_a_task_is_opened(under: BehindProxies) -> None:
    """SIGKILL between the fence and the committed offsets; the other worker starts while it is down."""
    broker_faults.killed_at(under, "after_fence", "group coordinator")


@pytest.mark.slow
def test_a_rolling_restart_by_clean_stop(under: BehindProxies) -> None:
    """One broker after the other, each when all replicas are in sync; others kill them."""
    broker_faults.rolling(under, kill=False)


def test_the_controller_is_gone(under: BehindProxies) -> None:
    """Leaders stay as they are: payments go on."""
    broker_faults.controller_lost(under, SHORT_S)


def test_in_the_end_the_books_agree(under: BehindProxies) -> None:
    """After all of these: results, ledger, counters, order; tables on disk = fold of the changelog."""
    under.check()
