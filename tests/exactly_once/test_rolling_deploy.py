"""A release with one source topic more replaces the one before, worker by worker, under load; then back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.counting_fleet import CountingWorker, Fleet, overlaps

OLD = ("payments", "payments-retry")
ADDED = "gateway-events"
NEW = (*OLD, ADDED)
STEP = 100  # events counted between two steps of a deploy


def replace(fleet: Fleet, worker: CountingWorker, release: Sequence[str]) -> None:
    """Stop one worker, start it on a release; the others go on meanwhile, all of them afterwards."""
    assert 0 == worker.stop(), worker.tail()
    fleet.wait_counted(OLD[0], fleet.counted[OLD[0]] + STEP)
    fleet.start(release, worker)
    fleet.wait_counted(OLD[0], fleet.counted[OLD[0]] + STEP)


@pytest.mark.timeout(480)
def test_a_rolling_deploy_that_adds_a_source_topic_splits_no_task(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The added topic stays unassigned until the last old worker is gone; then its backlog is handled."""
    with Fleet(broker, tmp_path, unique_name, topics=NEW, workers=3) as fleet:
        fleet.start(OLD, *fleet.workers)
        *others, last = fleet.workers
        with fleet.load():
            for worker in others:
                replace(fleet, worker, NEW)
            assert 0 == fleet.committed(ADDED)
            assert 0 == last.stop(), last.tail()
            fleet.wait_counted(ADDED, 1)
            fleet.start(NEW, last)
            fleet.wait_counted(ADDED, fleet.counted[ADDED] + STEP)
        fleet.check()
    logs = "".join(worker.log_file.read_text() for worker in fleet.workers)
    assert f"topic {unique_name}-{ADDED} stays unassigned until every worker subscribes to it" in logs


@pytest.mark.timeout(480)
def test_a_deploy_that_is_rolled_back_leaves_the_added_topic_where_it_stood(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Three topics, two, three again: the added one waits meanwhile, then goes on at its next event."""
    with Fleet(broker, tmp_path, unique_name, topics=NEW, workers=2) as fleet:
        fleet.start(NEW, *fleet.workers)
        first, second = fleet.workers
        with fleet.load():
            fleet.wait_counted(ADDED, STEP)
            replace(fleet, first, OLD)
            stood = fleet.committed(ADDED)
            replace(fleet, second, OLD)
            replace(fleet, first, NEW)
            assert stood == fleet.committed(ADDED)
            replace(fleet, second, NEW)
            fleet.wait_counted(ADDED, stood + STEP)
        fleet.check()


def test_a_task_that_is_open_on_two_workers_is_seen() -> None:
    """Handlers of two processes in one partition overlap, or they do not."""
    apart = ["begin 1 7 0", "begin 2 8 1", "end 3 7 0", "begin 4 8 0", "end 5 8 0", "end 6 8 1"]
    assert {} == overlaps(apart)
    assert {0: {7, 8}} == overlaps(["begin 1 7 0", "begin 2 8 0", "end 3 7 0", "end 4 8 0"])
