"""The console script: loads the commands and the app, then runs what the command line names."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import faust


def main() -> NoReturn:
    """Run a command, see `run_command`.

    What a start makes stays until the process ends. To look for garbage in it, two hundred times, took a
    tenth of the start.
    """
    gc.disable()
    from streamsocial_billing.cli.commands import run_command

    the_app()
    gc.freeze()
    gc.enable()
    run_command()


def the_app() -> faust.App:
    """The app of this process, with our commands beside those of Faust.

    Raises:
        SystemExit: with one line if a setting is wrong.
    """
    from streamsocial_billing.cli import commands

    return commands.the_app()
