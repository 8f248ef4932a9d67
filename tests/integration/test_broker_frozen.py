"""A broker that hangs with its connections open: nothing fails, nothing answers."""

from __future__ import annotations

import time
from pathlib import Path

from support.status import status_with
from support.system import Payments, System

from broker import LocalBroker

NOTICED_WITHIN_S = 25.0
"""Below the time-outs of the group and of requests (30 s), far above what a busy machine takes."""


def test_a_broker_that_hangs_is_said_long_before_requests_time_out(
    tmp_path: Path, unique_name: str
) -> None:
    """Since when is the moment at which it fell silent, give or take seconds; then all is well again."""
    with (
        LocalBroker(tmp_path / "kafka", port=0) as kafka,
        System(kafka.bootstrap, tmp_path, unique_name, partitions=2) as system,
    ):
        system.start()
        system.submit(Payments(seed=5).take(20))
        system.wait_answered()
        status_with(system, "all_well")
        frozen_at = time.time()
        kafka.pause()
        try:
            found = status_with(system, "kafka_unreachable")
        finally:
            kafka.resume()
        (away,) = (one for one in found["findings"] if one["code"] == "kafka_unreachable")
        assert away["since"] / 1000 < frozen_at + NOTICED_WITHIN_S
        assert found["findings"][0] == away
        status_with(system, "all_well")
        assert system.worker.running
