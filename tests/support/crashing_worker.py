"""Runs a worker that sends itself a signal when it reaches a named point of a commit for the N-th time.

`python -P crashing_worker.py SIGNAL POINT N FAUST_ARGUMENTS...`: the product has no switch for this; the
probe is given to the app the way any caller of `create_app` may.
"""

import os
import sys
from collections.abc import Callable
from itertools import count
from signal import Signals

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.simulated import SimulatedGateway

OPEN_FOR_MS = 300_000
"""What a test finds open after a kill stays open, however long it looks; the next start ends it at once."""


def signalling_probe(sent: Signals, point: str, at: int) -> Callable[[str], None]:
    """A probe that signals this process when `point` is reached for the `at`-th time; says so before."""
    reached = count(1)  # commits run in threads: next() of a count is atomic

    def probe(name: str) -> None:
        if name == point and next(reached) == at:
            os.write(2, f"{sent.name} at {point}\n".encode())
            os.kill(os.getpid(), sent)

    return probe


if __name__ == "__main__":
    probe = signalling_probe(Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
    del sys.argv[1:4]
    settings = the_settings()
    gateway = SimulatedGateway(settings.simulator_url, max_connections=max(1, settings.max_in_flight // 2))
    create_app(
        settings, {gateway.name: gateway}, probe=probe, transaction_timeout_ms=OPEN_FOR_MS
    ).main()  # fmt: skip
