"""What others wrote neither forges a line nor commands the terminal of who looks at it."""

from __future__ import annotations

import io
import logging

import orjson
import pytest
from click.testing import CliRunner

from streamsocial_billing.cli import dead_letters
from streamsocial_billing.cli.shared import give_up, say, say_json
from streamsocial_billing.logs.lines import TextFormatter
from streamsocial_billing.operations.dead_letters import DeadLetter, Replay

FORGED = "x\r\n2026-11-30T00:00:00.000Z ERROR outcome forged\x1b]0;t\x07\x1b[2J\x9b1A\u202e\x7f\u2028"


def is_safe(text: str) -> bool:
    """Nothing in it but printable signs and our own line ends."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def letter(monkeypatch: pytest.MonkeyPatch) -> DeadLetter:
    """A dead letter with the worst in each text."""
    made = DeadLetter(
        "3-17", 1, FORGED, FORGED, FORGED, FORGED, FORGED, FORGED.encode(), b'{"a":\n 1}' + FORGED.encode(),
        False, None, FORGED,
    )  # fmt: skip
    monkeypatch.setattr(dead_letters, "the_settings", lambda: None)
    monkeypatch.setattr(dead_letters, "dead_letter", lambda *_: made)
    monkeypatch.setattr(dead_letters, "dead_letters", lambda *_: [made])
    monkeypatch.setattr(dead_letters, "replayed", lambda _: {FORGED: Replay(FORGED, FORGED, 1)})
    return made


@pytest.mark.parametrize("words", [["show", "3-17"], ["list"], ["list", "--json"]])
def test_a_dead_letter_is_safe_to_look_at(letter: DeadLetter, words: list[str]) -> None:
    """`dlq show` keeps the line ends of the content alone; a field stays one line."""
    said = CliRunner().invoke(dead_letters.dlq, words).output

    assert "forged" in said
    assert is_safe(said)
    heads = said.partition("\n\n")[0].splitlines()
    assert not any(line.startswith("2026-11-30T00:00:00.000Z") for line in heads)
    if words == ["show", "3-17"]:
        assert '{"a":\n 1}x' in said
    if words[-1] == "--json":
        assert letter.error == orjson.loads(said)["error"]


def test_lines_of_commands_are_safe(capsys: pytest.CaptureFixture[str]) -> None:
    """Reasons and actors of others, errors that quote them, JSON."""
    say(FORGED)
    say_json({"reason": FORGED})
    with pytest.raises(SystemExit):
        give_up(FORGED)
    out, err = capsys.readouterr()

    assert 2 == out.count("\n")
    assert 1 == err.count("\n")
    assert is_safe(out + err)
    assert {"reason": FORGED} == orjson.loads(out.splitlines()[1])


def test_a_line_of_the_log_is_one_line() -> None:
    """Whatever stands in message, arguments, fields, exception."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter())
    record = logging.LogRecord("x", logging.ERROR, "", 0, f"said {FORGED} %s", (FORGED,), None)
    record.__dict__.update(reason=FORGED, actor=FORGED, exc_text=FORGED)
    handler.emit(record)

    assert 1 == out.getvalue().count("\n")
    assert is_safe(out.getvalue().replace("\x7f", ""))
