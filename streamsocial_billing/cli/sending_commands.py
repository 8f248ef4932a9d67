"""What the commands that order something have in common: how they wait, what they say, how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import click

from streamsocial_billing.cli.shared import ACTOR, REASON, one_line_errors, say, the_settings, waiting
from streamsocial_billing.operations.client import Became, send_command
from streamsocial_billing.operations.commands import Command, append_command
from streamsocial_billing.operations.replies import DONE


def with_command_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every order: --reason, --actor, --wait, --no-wait."""
    no_wait = click.option(
        "--no-wait", is_flag=True,
        help="Print the command's id and end with 0; its answer comes on billing-command-answers.",
    )  # fmt: skip
    for option in (no_wait, waiting("the answer"), ACTOR, REASON):
        command = option(command)
    return command


Showing = Callable[[Became], int]
"""Prints what became of an order; returns the exit code."""


def carry_out(command: Command, wait_s: float, *, no_wait: bool, show: Showing | None = None) -> NoReturn:
    """Order it and end: 0 done, 1 refused, 3 not answered in time.

    `show` says what became of it, if there is more to it than the answers.
    """

    def work() -> int:
        if no_wait:
            append_command(the_settings(), command)
            click.echo(command.command_id)
            return 0
        became = send_command(the_settings(), command, wait_s)
        return show_answers(became) if show is None else show(became)

    one_line_errors(work)


def show_answers(became: Became) -> int:
    """Each answer once: what was done on stdout, what was not on stderr."""
    said: dict[tuple[bool, str], int] = {}
    for one in became.answers:
        well = one.outcome == DONE and one.code is None
        text = one.why if one.outcome == DONE else f"refused: {one.why}"
        said[well, text] = said.get((well, text), 0) + 1
    total = len(became.answers)
    for (well, text), count in sorted(said.items(), key=lambda item: item[0][0]):
        where = f" ({count} of {total} tasks)" if became.answers[0].user_id is None else ""
        say(f"{text}{where}", err=not well)
    return 0 if all(well for well, _ in said) else 1
