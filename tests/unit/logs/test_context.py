"""A line that is written while an event is handled says which one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from faust_exactly_once.units import Unit, set_current_unit
from streamsocial_billing.logs.context import Context


def fields(name: str = "streamsocial_billing.payments.record_outcome", **given: Any) -> dict[str, Any]:
    """What the record has besides the usual."""
    record = logging.LogRecord(name, logging.WARNING, "", 0, "x", None, None)
    record.__dict__.update(given)
    assert Context().filter(record)
    names = ("topic", "task", "offset", "user_id")
    return {key: record.__dict__[key] for key in names if key in record.__dict__}


@pytest.fixture
def handling() -> Iterator[None]:
    """An event of user u1 is being handled."""
    event = SimpleNamespace(topic="payments", partition=3, offset=17, key=b"u1", value=b"")
    set_current_unit(Unit(cast(Any, None), event, 1, None, True))
    yield
    set_current_unit(None)


async def test_within_a_handler_a_line_has_the_place_of_its_event(handling: None) -> None:
    """Topic, task, offset, user; what the line says itself stands."""
    assert {"topic": "payments", "task": 3, "offset": 17, "user_id": "u1"} == fields()
    assert 4 == fields(offset=4)["offset"]


async def test_lines_of_libraries_and_lines_outside_handlers_have_none(handling: None) -> None:
    """Nobody knows what they are about."""
    assert {} == fields("aiokafka")
    set_current_unit(None)
    assert {} == fields()
