"""The command line of the showcase: `python -m showcase run|up`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

NEEDS_A_CHECKOUT = "the showcase runs from the root of a checkout: its broker is not in the package"


def main() -> int:
    """Do what was asked; returns the exit code. Whatever an operator can mend is one line on stderr."""
    try:
        import broker
    except ImportError:
        return _fail(NEEDS_A_CHECKOUT)
    from broker.choice import brokers_wanted, folder_name
    from broker.signals import stop_with
    from showcase.errors import ShowcaseFailed, Stopped
    from streamsocial_billing.kafka.committed import KafkaProblem

    command, data = _arguments()
    try:
        brokers = brokers_wanted(os.environ)
    except broker.BrokerError as error:
        _fail(str(error))
        return 2
    root = Path(broker.__file__).resolve().parent.parent
    folder = data or root / "data" / folder_name(command, brokers)
    stop_with(Stopped)
    try:
        return _do(command, folder.absolute())
    except (ShowcaseFailed, KafkaProblem, broker.BrokerError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'the showcase'}: {error.strerror or error}")
    except Stopped as stopped:
        sys.stderr.write("stopped, nothing is left running\n")
        return 0 if command == "up" else 128 + stopped.signum


def _arguments() -> tuple[str, Path | None]:
    parser = argparse.ArgumentParser(prog="python -m showcase")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "the main job once, then the books"), ("up", "leave it running until Ctrl-C")):
        command = commands.add_parser(name, help=text)
        default = f"default: data/{name}, with BROKERS=3 data/{name}-3"
        command.add_argument("--data", type=Path, help=default)
    chosen = parser.parse_args()
    return chosen.command, chosen.data


def _do(command: str, data: Path) -> int:
    from rich.console import Console

    from showcase.folder import Folder
    from showcase.run import run
    from showcase.up import up

    console = Console()
    with Folder(data) as folder:
        return (run if command == "run" else up)(folder, os.environ, console)


def _fail(text: str) -> int:
    sys.stderr.write(f"showcase: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
