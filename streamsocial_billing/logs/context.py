"""Which event a line is about: what our code logs while it handles one need not say it each time."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

from streamsocial_billing.logs.lines import is_ours

if TYPE_CHECKING:
    from faust_exactly_once import Unit

LONGEST_ID: Final = 64


class Context(logging.Filter):
    """Gives our records the place of the event that is being handled, and its key, the user.

    Has to run where the record is made: the unit is found by the running handler's context.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `topic`, `task`, `offset`, `user_id`, where the record does not name them itself."""
        unit = _unit() if is_ours(record.name) else None
        if unit is not None:
            event, fields = unit.event, record.__dict__
            fields.setdefault("topic", event.topic)
            fields.setdefault("task", event.partition)
            fields.setdefault("offset", event.offset)
            if event.key:
                fields.setdefault("user_id", event.key[:LONGEST_ID].decode("utf-8", "backslashreplace"))
        return True


def _unit() -> Unit | None:
    """The unit of the handler that runs here.

    A process that has not loaded the layer has none: the simulated gateway, which has a log like ours, would
    load Kafka's clients and Faust for this question alone, more than half of what its start takes.
    """
    layer = sys.modules.get("faust_exactly_once")
    find = getattr(layer, "find_unit", None)  # not there while the layer is being loaded
    unit: Unit | None = find() if find is not None else None
    return unit
