"""Workers of an earlier release and of this one in one group, under load: upgraded one by one, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.releases import releases
from support.system import STEADY, System
from support.upgrading import Upgrade

*_earlier, _last = releases()
FROM = [*(pytest.param(tag, marks=pytest.mark.slow) for tag in _earlier), _last]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("tag", FROM)
def test_workers_are_upgraded_and_taken_back_one_by_one_under_load(
    broker: str, tmp_path: Path, unique_name: str, tag: str
) -> None:
    """Nothing lost, nothing charged twice, every record and row read by either release after each step.

    Stopped in order one time, killed the other, as an upgrade may meet it. Orders are carried out amid each
    mixture: by whichever worker has the user.
    """
    with System(broker, tmp_path, unique_name, workers=2, **STEADY) as system:
        upgrade = Upgrade(system, releases()[tag], tmp_path)
        first, second = system.workers
        for worker in system.workers:
            upgrade.start(worker, "old")
        for worker, release, dies in (
            (first, "new", False), (second, "new", True), (first, "old", True), (second, "old", False),
        ):  # fmt: skip
            with upgrade.load():
                if dies:
                    worker.kill()
                else:
                    assert 0 == worker.stop(), worker.tail()
                upgrade.start(worker, release)
                upgrade.orders()
            upgrade.agrees()
        upgrade.finish()
