"""The command that compares the delivery guarantees; it lives in the checkout, not in the package."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from faust.cli.faust import cli as faust_cli

import streamsocial_billing
from streamsocial_billing.cli.shared import give_up

AS_TYPED = {"ignore_unknown_options": True, "allow_extra_args": True}


@faust_cli.command(context_settings=AS_TYPED, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """Compare the delivery guarantees on a local Kafka: the same payments, the same faults, in money.

    Needs a checkout of the project. `lab --help` names the options.
    """
    root = Path(streamsocial_billing.__file__).resolve().parent.parent
    if not (root / "lab" / "__main__.py").is_file():
        give_up("the lab is part of the source tree: in a checkout of the project, run make lab")
    sys.path.insert(0, str(root))
    from lab.__main__ import main

    raise SystemExit(main(list(arguments)))
