"""One log line for each outcome of a payment, once its transaction is committed."""

from __future__ import annotations

import logging
import time
from typing import Final

from faust_exactly_once import Event
from streamsocial_billing.domain.results import ChargeResult

OUTCOMES: Final = logging.getLogger("streamsocial_billing.outcome")
LEVEL: Final = logging.INFO


def tell(event: Event, told: tuple[ChargeResult]) -> None:
    """Log a committed outcome, the one that is told; what `Options.on_committed` calls.

    Never the payment method, never an amount: the log is read by more people than the books. The record is
    made by hand, as a copy: to make a new one, or to look for the calling line, costs twice as much as all
    the rest.
    """
    (result,), at_s = told, time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(
        _LIKE, msg=f"{result.action} {result.status}", created=at_s, msecs=at_s * 1000 % 1000,
        payment_id=result.payment_id, user_id=result.user_id, action=result.action, status=result.status,
        reason=result.reason, task=event.partition,
        offset=event.offset if result.source is None else result.source["offset"], attempt=result.attempt,
        replayed=result.replayed or None, resolves=result.resolves or None,
    )  # fmt: skip
    OUTCOMES.handle(record)


_LIKE: Final = logging.LogRecord(OUTCOMES.name, LEVEL, "", 0, "", None, None).__dict__
"""What all of these records have in common."""
