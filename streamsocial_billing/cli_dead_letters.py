"""The commands that look at dead letters, and send one back."""

from __future__ import annotations

from typing import Any

import click
import orjson
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli_shared import ACTOR, one_line_errors, the_settings
from streamsocial_billing.dead_letters import letter, letters, replay, replayed


@faust_cli.group()
def dlq() -> None:
    """Look at dead letters; send one back, once."""


@dlq.command("list")
@click.option("--reason", help="Only letters with this reason, bad_amount say.")
@click.option("--user", help="Only letters of this user_id.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
def dlq_list(reason: str | None, user: str | None, as_json: bool) -> None:
    """Name the dead letters so far."""

    def work() -> int:
        back = replayed(the_settings())
        for one in letters(the_settings()):
            if reason not in (None, one.reason) or user not in (None, one.user_id):
                continue
            told = one.as_json() | {"replayed": one.id in back}
            if as_json:
                click.echo(orjson.dumps(told).decode())
            else:
                went = " replayed" if told["replayed"] else ""
                click.echo(f"{one.id} {one.reason} from {one.source}: {one.error}{went}")
        return 0

    one_line_errors(work)


@dlq.command("show")
@click.argument("letter_id")
def dlq_show(letter_id: str) -> None:
    """Print one letter: what is known of it, then its content."""

    def work() -> int:
        found = letter(the_settings(), letter_id)
        for name, value in found.as_json().items():
            click.echo(f"{name}: {'-' if value is None else value}")
        click.echo(f"\n{found.text()}")
        return 0

    one_line_errors(work)


@dlq.command("replay")
@click.argument("letter_id")
@click.option("--correction", type=click.File("rb"), help="A payment as JSON that goes in its place.")
@ACTOR
@click.option("--dry-run", is_flag=True, help="Say what would happen.")
def dlq_replay(letter_id: str, correction: Any, actor: str, dry_run: bool) -> None:
    """Send a letter's event back to `payments`: once, whoever else tries at the same moment."""

    def work() -> int:
        content = correction.read() if correction is not None else None
        click.echo(replay(the_settings(), letter_id, correction=content, actor=actor, dry_run=dry_run))
        return 0

    one_line_errors(work)
