"""Run the local broker in the foreground: `python -m broker run`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from broker import BrokerError, LocalBroker

DEFAULT_DATA = Path(__file__).resolve().parent.parent / "data" / "kafka"
LOOK_EVERY_S = 0.2


class _Stop(BaseException):
    """Raised when a signal asks for the end."""


def main() -> int:
    """Start, print the address, stay until Ctrl-C or SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m broker", description=__doc__)
    run = parser.add_subparsers(dest="command", required=True).add_parser("run", help="run until Ctrl-C")
    run.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder (default: %(default)s)")
    run.add_argument("--port", type=int, help="client port; 0: any free one (default: 9092, else a free one)")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    return _serve(LocalBroker(arguments.data, arguments.port))


def _serve(broker: LocalBroker) -> int:
    try:
        started = time.monotonic()
        broker.start()
        print(f"BILLING_BROKER={broker.url}", flush=True)
        print(f"up in {time.monotonic() - started:.1f} s; Ctrl-C stops it", file=sys.stderr, flush=True)
        while broker.running:
            time.sleep(LOOK_EVERY_S)
        print(f"the broker ended by itself (log: {broker.log_file})", file=sys.stderr)
        return 1
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    except _Stop:
        return 0
    finally:
        broker.stop()


def _stop(number: int, _frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not cut the orderly stop short
    raise _Stop(number)


if __name__ == "__main__":
    sys.exit(main())
