"""A wrong value on the command line: what is allowed, in words."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from streamsocial_billing.cli.wrong_values import plain


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (click.FloatRange(min=0), "-1", "-1.0 is not allowed: give 0 or more"),
        (click.IntRange(1, 65535), "70000", "70000 is not allowed: give a number from 1 to 65535"),
        (click.IntRange(max=9), "10", "10 is not allowed: give 9 or less"),
        (click.IntRange(min=1), "x", "'x' is not a whole number"),
        (click.FloatRange(min=0), "x", "'x' is not a number"),
        (click.INT, "x", "'x' is not a whole number"),
        (click.Choice(["a", "b"]), "x", "'x' is not one of 'a', 'b'"),
    ],
)  # fmt: skip
def test_what_click_says_becomes_words(kind: click.ParamType, value: str, words: str) -> None:
    """As click really says it, whatever its version."""

    @click.command()
    @click.option("--n", type=kind)
    def command(n: object) -> None:
        """Nothing."""

    said = CliRunner().invoke(command, ["--n", value], standalone_mode=False).exception
    assert isinstance(said, click.ClickException)
    assert words in plain(said.format_message())
    assert "x>" not in plain(said.format_message())
