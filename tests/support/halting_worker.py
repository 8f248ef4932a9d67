"""Runs a worker that halts at a named point of a commit or of an opening, each time that a test asks for it.

`python -P halting_worker.py FOLDER FAUST_ARGUMENTS...`: see support.halts, which asks. The product has no
switch for this; the probe is given to the app the way any caller of `create_app` may. CLUSTER_MUTANT names a
defect of torture.mutants to be put back: then the tests must be red.
"""

import inspect
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.simulated import SimulatedGateway
from torture.mutants import install

GIVE_UP_S: Final = 120.0
LOOK_EVERY_S: Final = 0.005


def halting_probe(folder: Path) -> Callable[[str], None]:
    """A probe that halts its thread where `folder` has a file `at-POINT`, until the file is gone again.

    Whoever renames the file first is the one that halts: one task of one worker.
    """

    def probe(point: str) -> None:
        halted = folder / f"halted-{point}-{os.getpid()}-{partition_of(inspect.currentframe())}"
        with suppress(FileNotFoundError):
            os.rename(folder / f"at-{point}", halted)
            limit = time.monotonic() + GIVE_UP_S
            while halted.exists() and time.monotonic() < limit:
                time.sleep(LOOK_EVERY_S)

    return probe


def partition_of(frame: FrameType | None) -> int:
    """The task whose commit or opening a frame belongs to; the probe is told the point only."""
    while frame is not None:
        for name in ("self", "assigned"):
            found = getattr(frame.f_locals.get(name), "partition", None)
            if isinstance(found, int):
                return found
        frame = frame.f_back
    return -1


if __name__ == "__main__":
    probe = halting_probe(Path(sys.argv[1]))
    del sys.argv[1]
    mutant = os.environ.get("CLUSTER_MUTANT")
    if mutant:
        install(mutant)
    settings = the_settings()
    gateway = SimulatedGateway(settings.simulator_url, max_connections=max(1, settings.max_in_flight // 2))
    create_app(settings, {gateway.name: gateway}, probe=probe).main()
