"""A worker that comes back to many keys: from empty, from the state that a SIGKILL left.

`python -m benchmarks own recovery` is the same with a million keys, and with the times.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.system import Payments, System, WorkerProcess

PAYMENTS_SENT = 12_000
RUNS = re.compile(r"task (\d+) runs: fenced in \d+ ms, recovered (\d+) records")


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_worker_recovers_all_from_empty_but_only_the_tail_after_a_crash(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """From empty every key is read again; after SIGKILL next to nothing is."""
    with System(broker, tmp_path, unique_name, partitions=4) as system:
        worker = system.worker
        worker.start()
        system.submit(Payments(3, users=900, resent=0.0).take(PAYMENTS_SENT))
        system.wait_answered(within_s=120)
        worker.kill()
        tail = recovered(worker)
        worker.kill()
        worker.forget_local_state()
        everything = recovered(worker)
        system.check()
    print(f"{everything} records from empty, {tail} after SIGKILL")
    assert everything >= PAYMENTS_SENT  # one entry per payment at least, none compacted so soon
    assert tail <= everything // 20


def recovered(worker: WorkerProcess) -> int:
    """Start it; how many changelog records its four tasks read until they ran."""
    worker.start()
    for task in range(4):
        worker.wait_for_line(rf"task {task} runs")
    found = [RUNS.search(line) for line in worker.running_tasks()]
    return sum(int(one[2]) for one in found if one)
