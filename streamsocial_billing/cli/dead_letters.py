"""The commands that look at dead letters, and send one back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli.shared import ACTOR, one_line_errors, say, say_json, the_settings
from streamsocial_billing.operations.dead_letters import (
    DeadLetter,
    Replay,
    dead_letter,
    dead_letters,
    failed_again,
    replay,
    replayed,
)


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
        links = _Links.read()
        for one in dead_letters(the_settings()):
            if reason not in (None, one.reason) or user not in (None, one.user_id):
                continue
            shown = links.shown(one)
            if as_json:
                say_json(shown)
            else:
                state = _state(shown)
                say(f"{one.id} {one.reason} from {one.source}: {one.error}{state and f' ({state})'}")
        return 0

    one_line_errors(work)


@dataclass(frozen=True, slots=True)
class _Links:
    """Which letter went back where, which letter came from whose replay."""

    back: Mapping[str, Replay]
    again: Mapping[str, str]
    replay_of: Mapping[str, str]

    @classmethod
    def read(cls) -> _Links:
        back = replayed(the_settings())
        again = failed_again(back, dead_letters(the_settings()))
        return cls(back, again, {second: first for first, second in again.items()})

    def shown(self, one: DeadLetter) -> dict[str, Any]:
        """What is known of a letter: as it was written, then what became of it."""
        went = self.back.get(one.id)
        return one.as_json() | {
            "replay_of": self.replay_of.get(one.id), "replayed": went is not None,
            "replayed_to": went.to if went else None, "replayed_by": went.actor if went else None,
            "failed_again": self.again.get(one.id),
        }  # fmt: skip


def _state(shown: Mapping[str, Any]) -> str:
    """Where a letter came from and went, in words."""
    said = []
    if shown["replay_of"] is not None:
        said.append(f"replay of {shown['replay_of']}")
    if shown["replayed"]:
        where = "" if shown["replayed_to"] is None else f" to {shown['replayed_to']}"
        said.append(f"replayed{where} by {shown['replayed_by']}")
    if shown["failed_again"] is not None:
        said.append(f"failed again as {shown['failed_again']}")
    return ", ".join(said)


@dlq.command("show")
@click.argument("letter_id")
def dlq_show(letter_id: str) -> None:
    """Print one letter: what is known of it, then its content."""

    def work() -> int:
        found = dead_letter(the_settings(), letter_id)
        for name, value in _Links.read().shown(found).items():
            say(f"{name}: {'-' if value is None else value}")
        click.echo("")
        for line in found.text().split("\n"):
            say(line)
        return 0

    one_line_errors(work)


@dlq.command("replay")
@click.argument("letter_id")
@click.option("--correction", type=click.File("rb"), help="A payment as JSON that goes in its place.")
@ACTOR
@click.option("--dry-run", is_flag=True, help="Check all, send nothing; say what would be sent.")
def dlq_replay(letter_id: str, correction: Any, actor: str, dry_run: bool) -> None:
    """Send a letter's event back to `payments`: once, whoever else tries at the same moment.

    What would fail again is refused, exit code 1, and the letter stays usable: correct it.
    """

    def work() -> int:
        content = correction.read() if correction is not None else None
        say(replay(the_settings(), letter_id, correction=content, actor=actor, dry_run=dry_run))
        return 0

    one_line_errors(work)
