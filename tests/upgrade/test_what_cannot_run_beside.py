"""A release that cannot run beside another one, on a real Kafka: neither joins the other's group."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.system import CALM, System, WorkerProcess, payment

from processes import ROOT

NEXT = (sys.executable, "-P", str(ROOT / "tests/support/next_format_worker.py"))
ADVICE = "stop all workers of 0.3.0 first"


def refused(worker: WorkerProcess) -> None:
    """Start it; it ends by itself with exit code 1."""
    worker.start()
    assert 1 == worker.wait_ended(), worker.tail()
    assert [] == worker.running_tasks()


def runs(worker: WorkerProcess) -> None:
    """Start it; return when a task of it runs."""
    worker.start()
    worker.wait_ready()


@pytest.mark.timeout(900)
def test_a_release_that_cannot_run_beside_the_one_before_refuses_to_join(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """One line says what to stop; the others do not notice. It starts when they are stopped, not before.

    The way back is the same: the older one refuses, with the same line, while one of the newer runs.
    """
    with System(broker, tmp_path, unique_name, workers=2, **CALM) as system:
        first, second = system.workers
        runs(first)
        system.submit([payment("u1", "p1")])
        system.wait_answered()

        here = second.program
        second.program = NEXT
        refused(second)
        line = second.log_file.read_text().splitlines()[-1]
        assert line.endswith(f"are in the group {unique_name}: {ADVICE}")
        assert "rebalance 2" not in first.log_file.read_text()
        system.submit([payment("u1", "p2")])
        system.wait_answered()

        assert 0 == first.stop()
        runs(second)
        refused(first)
        assert "workers of a release that cannot run beside this one" in first.log_file.read_text()
        system.submit([payment("u1", "p3")])
        system.wait_answered()

        assert 0 == second.stop()
        second.program = here
        runs(first)
        system.check()
