"""A record as a JSON object: the fields of the text by name, one line each."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pythonjsonlogger", reason="constraints.txt has it: make install")
from streamsocial_billing.logs.json_lines import JsonFormatter  # noqa: E402 - after the look for the library


def record(message: object, *args: object, **fields: Any) -> logging.LogRecord:
    """A record as `logger.warning(message, *args, extra=fields)` makes it, at a known time."""
    made = logging.LogRecord("streamsocial_billing.billing", logging.WARNING, "", 0, message, args, None)
    made.created = 1_795_976_753.123
    made.__dict__.update(fields)
    return made


def test_an_object_has_the_fields_by_name() -> None:
    """Numbers stay numbers, None is left out; a field cannot replace what every line has."""
    made = record("%s waits", "it", payment_id="p1", reason=None, task=3, replayed=True, level="high")
    assert {
        "time": "2026-11-29T18:25:53.123Z", "level": "WARNING", "logger": "billing", "message": "it waits",
        "payment_id": "p1", "task": 3, "replayed": True, "level_": "high",
    } == json.loads(JsonFormatter().format(made))  # fmt: skip


def test_what_the_message_names_is_a_field_all_the_same() -> None:
    """A status line can be searched by its fields."""
    made = record("status task=3 state=running", task=3, state="running", fields_in_message=True)
    found = json.loads(JsonFormatter().format(made))
    assert (3, "running", False) == (found["task"], found["state"], "fields_in_message" in found)


def test_a_traceback_is_a_field_with_its_lines() -> None:
    """As Python writes it."""
    made = record("failed")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert json.loads(JsonFormatter().format(made))["exception"].endswith("ValueError: first\nsecond")


@pytest.mark.parametrize("evil", ['a"}\n{"level":"ERROR"', "\x1b[2J", "\u202egnp", "\r\x85\u2028x", "\ud83d"])
def test_nothing_from_outside_can_forge_an_object(evil: str) -> None:
    """Line ends of every kind are escaped; what was said can be read back."""
    line = JsonFormatter().format(record("said: %s", evil, detail=evil))
    assert 1 == len(line.splitlines())
    if evil != "\ud83d":
        assert evil == json.loads(line)["detail"]


@given(st.text(), st.text(min_size=1))
def test_every_text_makes_one_line_that_json_reads(message: str, value: str) -> None:
    """Whatever the characters."""
    line = JsonFormatter().format(record("%s", message, detail=value))
    assert {"message", "detail"} <= json.loads(line).keys()
    assert 1 == len(line.splitlines())
