"""Help texts that Faust's own commands lack."""

from __future__ import annotations

from typing import Final

import click

HELP: Final = {
    "--web-bind": "Address that the web server listens on: 127.0.0.1 unless given. 0.0.0.0 opens it to other "
    "machines: set BILLING_API_TOKEN first.",
}


def add_help(command: click.Command) -> None:
    """Give each option of a command, and of those below it, its help where Faust left it out."""
    for option in command.params:
        if isinstance(option, click.Option) and not option.help:
            option.help = next((HELP[name] for name in option.opts if name in HELP), None)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            add_help(below)
