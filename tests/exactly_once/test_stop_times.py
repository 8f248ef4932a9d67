"""How long results stop when a worker dies, leaves or comes, as the reader of `charge-results` sees it.

Properties, over a steady stream of payments to every partition:

1. after SIGKILL of one of two workers each partition answers again within the session time-out + 3 s
2. after a clean stop of one of two workers within 3 s
3. a third worker that joins stops no partition for longer than 5 s

A result counts at the time that its producer stamped on the record. A machine that is busy with something
else slows any one move, so the quietest of two counts; every figure is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from support.system import SESSION_TIMEOUT_S, Payments, Stream, System, WorkerProcess

PARTITIONS = 6
AFTER_SIGKILL_S = SESSION_TIMEOUT_S + 3.0
AFTER_STOP_S = 3.0
WHILE_JOINING_S = 5.0


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_results_come_again_soon_after_a_worker_died_left_or_joined(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Each partition answers again within time-out + 3 s of a SIGKILL, 3 s of a stop, 5 s of a join."""
    with System(broker, tmp_path, unique_name, workers=3, partitions=PARTITIONS) as system:
        system.gateway.faults(latency_ms=5)
        first, second, third = system.workers
        first.start()
        second.start()
        first.wait_ready()
        second.wait_ready()
        with Stream(system, Payments(5, users=600), chunk=20, ahead=300, most=80_000):
            all_answer_after(system, time.time())
            killed, stopped, joined = [], [], []
            for _ in range(2):
                killed.append(longest_stop(system, second.kill))
                longest_stop(system, lambda: comes(second))
                stopped.append(longest_stop(system, lambda: leaves(second)))
                longest_stop(system, lambda: comes(second))
                joined.append(longest_stop(system, lambda: comes(third)))
                longest_stop(system, lambda: leaves(third))
        system.check()
    print(f"stops: SIGKILL {killed}, stop {stopped}, a third worker {joined}")
    assert min(killed) <= AFTER_SIGKILL_S
    assert min(stopped) <= AFTER_STOP_S
    assert min(joined) <= WHILE_JOINING_S


def comes(worker: WorkerProcess) -> None:
    """Start a worker; returns when it runs a task."""
    worker.start()
    worker.wait_ready()


def leaves(worker: WorkerProcess) -> None:
    """Stop a worker in order."""
    assert 0 == worker.stop(), worker.tail()


def longest_stop(system: System, act: Callable[[], object]) -> float:
    """Do it, wait until every partition answers again; the longest time that one of them was silent."""
    began = time.time()
    act()
    all_answer_after(system, time.time())
    times = answer_times(system)
    silent = [
        later - earlier
        for partition in times.values()
        for earlier, later in pairwise([began, *(at for at in partition if at > began)])
    ]  # fmt: skip
    return round(max(silent), 2)


def all_answer_after(system: System, moment: float) -> None:
    """Return when each partition has a result that was written after the moment."""
    found = system.results.wait(
        lambda: sum(bool(at) and at[-1] > moment for at in answer_times(system).values()) == PARTITIONS
    )
    assert found, f"not every partition answers: {[worker.tail() for worker in system.workers]}"


def answer_times(system: System) -> dict[int, list[float]]:
    """By partition, when its results were stamped: seconds since the epoch, in order."""
    times: dict[int, list[float]] = {number: [] for number in range(PARTITIONS)}
    for record in list(system.results.records)[-20_000:]:
        times[record.partition()].append(record.timestamp()[1] / 1000)
    return {number: sorted(found) for number, found in times.items()}
