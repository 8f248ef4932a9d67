"""Runs the simulated gateway from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamsocial_billing.gateways.simulator.server import run


def main() -> int:
    """Parse the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m streamsocial_billing.gateways.simulator", description="A simulated payment gateway."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8420, help="0: any free one (default: 8420)")
    parser.add_argument("--ledger", type=Path, required=True, help="SQLite file, made where it is missing")
    parser.add_argument("--name", action="append", default=[], help="a host by which others call it")
    options = parser.parse_args()
    return run(options.host, options.port, options.ledger, names=options.name)


if __name__ == "__main__":
    sys.exit(main())
