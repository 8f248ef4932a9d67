"""Every command and option of the command line says what it is for."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli import commands as cli  # noqa: F401 - it adds our commands


def commands(
    command: click.Command, path: str = "streamsocial-billing"
) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, by what one types."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


ALL = dict(commands(faust_cli))


def test_the_tree_holds_our_commands_and_fausts() -> None:
    """Or else the next test looks at nothing."""
    ours = {"submit", "results", "gateway", "audit", "resolve", "reconcile", "dlq replay", "gateways stop",
            "subscriptions add"}  # fmt: skip
    assert {f"streamsocial-billing {name}" for name in (*ours, "worker", "agents")} <= ALL.keys()


@pytest.mark.parametrize("path", ALL)
def test_every_option_has_a_help_text(path: str) -> None:
    """Also those that Faust brings: `worker --web-bind` decides who may read user data."""
    command = ALL[path]
    assert (command.help or "").strip() or command is faust_cli
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert [] == [one.opts[0] for one in options if not (one.help or "").strip()]


def test_the_default_of_the_data_folder_is_told_as_it_is() -> None:
    """Faust's own text names a folder that is used no more, with a placeholder in it."""
    text = " ".join(faust_cli.get_help(click.Context(faust_cli)).split())
    assert "Directory to keep application state. [default: (data/APP_ID)]" in text


@pytest.mark.parametrize("path", ALL)
def test_no_help_text_uses_our_private_words(path: str) -> None:
    """A native English operator reads it once and knows."""
    context = click.Context(ALL[path], info_name=path)
    text = " ".join(ALL[path].get_help(context).split()).lower()
    words = ("is ordered", "our books against", "the books against", "held up", "all holds", "double")
    assert [] == [word for word in words if word in text]
