"""Workers come and go in order, under load: every coming and going is a rebalance of the ones that stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.system import Payments, Stream, System

ROUNDS = 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_that_join_and_leave_lose_nothing_and_double_nothing(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """What the consumer held for an old epoch is never taken for handled by the new one."""
    with System(broker, tmp_path, unique_name, workers=2) as system:
        system.gateway.faults(latency_ms=5)
        stays, comes = system.workers
        stays.start()
        stays.wait_ready()
        with Stream(system, Payments(11, users=400), chunk=10, ahead=400, most=60_000):
            for _ in range(ROUNDS):
                comes.start()
                comes.wait_ready()
                before = system.answered()
                system.wait_answered(before + 200)
                assert 0 == comes.stop()
                system.wait_answered(system.answered() + 100)
        report = system.check()
    print(f"{2 * ROUNDS} rebalances, {report.events} events")
    assert report.events > ROUNDS * 300
