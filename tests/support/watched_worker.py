"""Runs a worker that is watched closely: short deadlines, a hand on the commit that follows an aborted one.

`python -P watched_worker.py GAP_ALARM_S HOLD FAUST_ARGUMENTS...`: as long as the file HOLD exists, a
transaction that is sent again after an abort waits before its first step.
"""

import sys
import time
from pathlib import Path

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.simulated import SimulatedGateway

REPORT_EVERY_S = 0.2


class Hold:
    """A probe; commits run in threads, so it may block there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._under_way = False

    def __call__(self, point: str) -> None:
        if point == "before_send":
            while self._under_way and self._file.exists():
                time.sleep(0.02)
            self._under_way = True
        elif point == "after_commit":
            self._under_way = False


if __name__ == "__main__":
    alarm_s, hold = float(sys.argv[1]), Hold(Path(sys.argv[2]))
    del sys.argv[1:3]
    settings = the_settings()
    gateway = SimulatedGateway(settings.simulator_url, max_connections=max(1, settings.max_in_flight // 2))
    create_app(
        settings, {gateway.name: gateway}, probe=hold, head_of_line_alarm_s=alarm_s,
        report_every_s=REPORT_EVERY_S,
    ).main()  # fmt: skip
