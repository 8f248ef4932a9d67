"""A record as a line of text: one format, nothing that could pass for another line."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsocial_billing.logs.lines import TextFormatter

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.-]+ [^\x00-\x1f\x7f]*"
)


def record(message: object, *args: object, name: str = "streamsocial_billing.billing", **fields: Any) -> Any:
    """A record as `logger.warning(message, *args, extra=fields)` makes it, at a known time."""
    made = logging.LogRecord(name, logging.WARNING, "", 0, message, args, None)
    made.created = 1_795_976_753.123
    made.__dict__.update(fields)
    return made


def test_a_line_has_its_time_in_utc_its_level_its_logger_its_message_its_fields() -> None:
    """ISO 8601 with Z; the package's own name is left out; None is no field."""
    made = record("%s waits", "it", payment_id="p1", reason=None, task=3, replayed=True)
    line = TextFormatter().format(made)
    assert "2026-11-29T18:25:53.123Z WARNING billing it waits payment_id=p1 task=3 replayed=true" == line
    assert LINE.fullmatch(line)


@pytest.mark.parametrize(
    ("logger", "shown"),
    [
        ("faust_exactly_once", "exactly_once"), ("faust_exactly_once.watch", "exactly_once.watch"),
        ("streamsocial_billing.outcome", "outcome"), ("faust.app", "faust.app"), ("aiokafka", "aiokafka"),
    ],
)  # fmt: skip
def test_loggers_keep_the_names_that_people_search_for(logger: str, shown: str) -> None:
    """The layer's lines as they were when it was a folder of the product."""
    assert f" WARNING {shown} x" in TextFormatter().format(record("x", name=logger))


def test_text_does_not_repeat_fields_that_the_message_names() -> None:
    """`fields_in_message`: they are for JSON."""
    made = record("status task=3 state=running", task=3, state="running", fields_in_message=True)
    assert TextFormatter().format(made).endswith(" status task=3 state=running")


def test_a_traceback_stays_in_its_line() -> None:
    """As the field `exception`, its line ends escaped."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    line = TextFormatter().format(made)
    assert LINE.fullmatch(line)
    assert 'exception="Traceback (most recent call last):\\n' in line


@pytest.mark.parametrize(
    "evil",
    ["a\n2026-11-29T18:25:53.123Z ERROR billing forged", "\x1b[2J", "\u202egnp", "\r\x85\u2028x", "\ud83d"],
)
def test_nothing_from_outside_can_forge_a_line(evil: str) -> None:
    """Line ends, control signs and what turns the direction are escaped, in message and fields alike."""
    line = TextFormatter().format(record("said: %s", evil, detail=evil))
    assert LINE.fullmatch(line)
    assert len(line.splitlines()) == 1


@given(st.text(), st.text(min_size=1))
def test_every_text_makes_one_line(message: str, value: str) -> None:
    """Whatever the characters."""
    assert LINE.fullmatch(TextFormatter().format(record("%s", message, detail=value)))


def test_a_service_of_faust_is_named_without_the_tree_before_it() -> None:
    """`[^---Web]: Cleanup` is a drawing."""
    assert TextFormatter().format(record("[^---Web]: Cleanup")).endswith(" billing Web: Cleanup")


def test_a_field_in_quotes_cannot_end_before_its_end() -> None:
    """A value with blanks, quotes or equals signs is a JSON string."""
    line = TextFormatter().format(record("x", detail='a" state=running b'))
    assert line.endswith(r' detail="a\" state=running b"')


def test_colours_are_for_terminals_only() -> None:
    """The level alone has one."""
    assert "\x1b[" not in TextFormatter().format(record("x"))
    assert " \x1b[33mWARNING\x1b[0m billing x" in TextFormatter(colours=True).format(record("x"))
