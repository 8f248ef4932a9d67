"""One log line for each outcome of a payment, once its transaction is committed."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from faust_exactly_once import Event, current_unit

logger: Final = logging.getLogger("streamsocial_billing.outcome")


def note(facts: tuple[Any, ...]) -> None:
    """Have the outcome logged when the running unit commits; nothing of it if that level is switched off.

    `facts`: payment_id, user_id, action, status, reason, attempt, replayed, resolves, offset. Never the
    payment method, never an amount: the log is read by more people than the books.
    """
    if logger.isEnabledFor(logging.INFO):
        current_unit().report(*facts)


def tell(event: Event, facts: tuple[Any, ...]) -> None:
    """Log a committed outcome; what `Options.on_committed` calls.

    The record is made by hand, as a copy: to make a new one, or to look for the calling line, costs twice as
    much as all the rest.
    """
    payment_id, user_id, action, status, reason, attempt, replayed, resolves, offset = facts
    at_s = time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(
        _LIKE, msg=f"{action} {status}", created=at_s, msecs=at_s * 1000 % 1000,
        payment_id=payment_id, user_id=user_id, action=action, status=status, reason=reason,
        task=event.partition, offset=event.offset if offset is None else offset, attempt=attempt,
        replayed=replayed or None, resolves=resolves or None,
    )  # fmt: skip
    logger.handle(record)


_LIKE: Final = logging.LogRecord(logger.name, logging.INFO, "", 0, "", None, None).__dict__
"""What all of these records have in common."""
