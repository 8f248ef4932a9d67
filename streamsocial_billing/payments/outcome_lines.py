"""One log line for each outcome of a payment, once its transaction is committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from faust_exactly_once import Event
from streamsocial_billing.domain.events import ACTIONS
from streamsocial_billing.domain.results import ChargeResult
from streamsocial_billing.domain.statuses import STATUSES
from streamsocial_billing.logs.lines import quoted, short
from streamsocial_billing.logs.writing import Writer

OUTCOMES: Final = logging.getLogger("streamsocial_billing.outcome")
LEVEL: Final = logging.INFO
CommittedOutcome = tuple[Event, tuple[ChargeResult]]


def log_outcomes(outcomes: list[CommittedOutcome]) -> None:
    """Log the outcomes of a commit; what `Options.on_commit` calls.

    Never the payment method, never an amount: the log is read by more people than the books.
    """
    lines = Lines(outcomes, time.time())
    logger: logging.Logger | None = OUTCOMES
    while logger is not None:
        for handler in logger.handlers:
            if isinstance(handler, Writer):
                handler.emit_many(lines)
            elif handler.level <= LEVEL:
                for place in range(len(lines)):
                    handler.handle(lines.record(place))
        logger = logger.parent if logger.propagate else None


class Lines:
    """The outcomes of a commit as the log's own thread writes them.

    A record for each, made, filtered, formatted one by one, took 13 us of an outcome's CPU.
    """

    words = "\n".join(f"{action} {status}" for action in sorted(ACTIONS) for status in STATUSES)

    def __init__(self, outcomes: list[CommittedOutcome], at_s: float) -> None:
        self._outcomes = outcomes
        self.at_s = at_s

    def __len__(self) -> int:
        return len(self._outcomes)

    def texts(self, time_text: str) -> Iterator[tuple[str, str]]:
        """Each line as TextFormatter writes its `record`, beside what it says that is not in `words`."""
        start = f"{time_text} {_LEVEL_NAME} {_NAME} "
        for event, (result,) in self._outcomes:
            action, status, source = result.action, result.status, result.source
            payment_id, user_id = quoted(result.payment_id), quoted(result.user_id)
            reason = "" if result.reason is None else f" reason={quoted(result.reason)}"
            offset = event.offset if source is None else source["offset"]
            tail = f"task={event.partition} offset={offset} attempt={result.attempt}"
            replayed, resolves = " replayed=true" * result.replayed, " resolves=true" * result.resolves
            yield (
                f"{start}{action} {status} payment_id={payment_id} user_id={user_id} action={action} "
                f"status={status}{reason} {tail}{replayed}{resolves}\n"
            ), f"{payment_id}\n{user_id}\n{reason}\n{tail}"

    def record(self, place: int) -> logging.LogRecord:
        """One of them as a record, for those that take nothing else."""
        event, (result,) = self._outcomes[place]
        record = logging.LogRecord.__new__(logging.LogRecord)
        record.__dict__.update(
            _LIKE, msg=f"{result.action} {result.status}", created=self.at_s,
            msecs=self.at_s * 1000 % 1000,
        )  # fmt: skip
        record.__dict__.update(_fields(event, result))
        return record


def _fields(event: Event, result: ChargeResult) -> list[tuple[str, Any]]:
    """What a line says besides its message."""
    fields: list[tuple[str, Any]] = [
        ("payment_id", result.payment_id), ("user_id", result.user_id), ("action", result.action),
        ("status", result.status),
    ]  # fmt: skip
    if result.reason is not None:
        fields.append(("reason", result.reason))
    offset = event.offset if result.source is None else result.source["offset"]
    fields += (("task", event.partition), ("offset", offset), ("attempt", result.attempt))
    if result.replayed:
        fields.append(("replayed", True))
    if result.resolves:
        fields.append(("resolves", True))
    return fields


_LIKE: Final = logging.LogRecord(OUTCOMES.name, LEVEL, "", 0, "", None, None).__dict__
"""What all of these records have in common."""
_NAME: Final = short(OUTCOMES.name)
_LEVEL_NAME: Final = logging.getLevelName(LEVEL)
