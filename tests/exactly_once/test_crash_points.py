"""A worker that dies at a named point of a commit loses nothing, doubles nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.system import STEADY, Payments, System

COMMIT_POINTS = (
    "before_send", "between_sends", "before_offsets", "before_commit", "after_commit", "after_store",
)  # fmt: skip


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_worker_that_dies_at_a_point_of_the_commit_loses_and_doubles_nothing(
    point: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Two deaths in a row at the point, the second one with the work of the first: the books agree."""
    payments = Payments(seed=len(point))
    with System(broker, tmp_path, unique_name) as system:
        system.worker.start(crash_at=(point, 5))
        system.worker.wait_ready()
        while system.worker.running and system.sent < 3000:
            system.submit(payments.take(40))
            system.results.wait(lambda: system.answered() >= system.sent, 0.2)
        system.worker.wait_killed()
        system.submit(payments.take(60))
        system.worker.start(crash_at=(point, 3))
        system.worker.wait_killed()
        system.submit(payments.take(60))
        system.worker.start()
        report = system.check()
        assert report.resent > 0


def test_a_worker_that_dies_while_it_recovers_begins_again(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Local state gone, twice a death while it is read back: the third start goes on, knows every payment."""
    payments = Payments(seed=11)
    # no call is doubted and repeated: they are counted
    with System(broker, tmp_path, unique_name, **STEADY) as system:
        system.start()
        events = payments.take(300)
        system.submit(events)
        system.wait_answered()
        system.worker.kill()
        for at in (1, 3):
            system.worker.forget_local_state()
            system.worker.start(crash_at=("during_recovery", at))
            system.worker.wait_killed()
        calls = [system.calls(event) for event in events]
        system.submit(events)
        system.worker.start()
        system.check()
        assert calls == [system.calls(event) for event in events]
