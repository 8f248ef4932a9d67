"""Rows as a worker stores them."""

from __future__ import annotations

from typing import Any

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import first_entry
from tables.payments import Source, written


def stored_payment(event: PaymentEvent, source: Source, gateway_ref: str, at_ms: int) -> dict[str, Any]:
    """The row of a payment that succeeded at the first call."""
    received = Received(event, source, at_ms)
    return written(first_entry(received, Called(Verdict("succeeded", None, gateway_ref), "acct", 1), at_ms))
