"""Runs a worker that kills itself when it reaches a named point of a commit for the N-th time.

`python crashing_worker.py POINT N FAUST_ARGUMENTS...`: the product has no switch for this; the probe is given
to the app the way any caller of `create_app` may.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count

from streamsocial_billing.application import create_app
from streamsocial_billing.cli import the_settings
from streamsocial_billing.gateways.simulated import SimulatedGateway


def killing_probe(point: str, at: int) -> Callable[[str], None]:
    """A probe that ends this process with SIGKILL when `point` is reached for the `at`-th time."""
    reached = count(1)  # commits run in threads: next() of a count is atomic

    def probe(name: str) -> None:
        if name == point and next(reached) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return probe


if __name__ == "__main__":
    point, at = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    settings = the_settings()
    gateway = SimulatedGateway(settings.gateway_url, max_connections=max(1, settings.max_in_flight // 2))
    create_app(settings, {gateway.name: gateway}, probe=killing_probe(point, at)).main()
