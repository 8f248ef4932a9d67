"""The command line: `python -m torture [--size ci|long] [--seed N] ...`; exit code 0 for a clean run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.choice import brokers_wanted
from broker.jars import BrokerError
from processes import ROOT


@dataclass(frozen=True, slots=True)
class Size:
    """How much is sent, how many faults come, within how many seconds."""

    payments: int
    faults: int
    length_s: float


SIZES: Final = {
    1: {"ci": Size(2_000, 40, 110.0), "long": Size(50_000, 1_000, 1_680.0)},
    # the same storm; each fault of a broker takes until all replicas are in sync again, and three brokers
    # share the machine with the workers, so fewer payments and faults fit into it
    3: {"ci": Size(1_000, 45, 200.0), "long": Size(20_000, 500, 1_680.0)},
}


def main() -> int:
    """Run as asked; what cannot be asked for is refused before Kafka's clients and Faust are loaded."""
    chosen = _arguments()
    from torture.one_run import run_as_chosen

    return run_as_chosen(chosen)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--size", choices=SIZES[1], default="long")
    parser.add_argument("--brokers", help="1 or 3; default: what the variable BROKERS says, else 1")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--payments", type=int, help="different payments; default: by size")
    parser.add_argument("--faults", type=int, help="default: by size")
    parser.add_argument("--length", type=float, help="seconds of the storm; default: by size")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "torture", help="default: %(default)s")
    parser.add_argument("--control", action="store_true", help="plain Faust instead of the product")
    parser.add_argument("--judge", action="store_true", help="no run: judge what --out holds once more")
    parser.add_argument("--mutant", help="a defect to put back in, see torture/mutants.py")
    chosen = parser.parse_args()
    try:
        environ = os.environ if chosen.brokers is None else {**os.environ, "BROKERS": chosen.brokers}
        chosen.brokers = brokers_wanted(environ)
    except BrokerError as error:
        parser.error(str(error))
    size = SIZES[chosen.brokers][chosen.size]
    for name, value in (("payments", size.payments), ("faults", size.faults), ("length", size.length_s)):
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    chosen.out = chosen.out.absolute()
    return chosen


if __name__ == "__main__":
    sys.exit(main())
