"""What is there before a payment is decided: its event, what the tables say of it."""

from __future__ import annotations

from typing import NamedTuple

from streamsocial_billing.domain.events import PaymentEvent
from tables.charges import ChargeState
from tables.open_payments import OpenPayment
from tables.payments import Entry, Source


class Received(NamedTuple):
    """A payment as its event brought it.

    source       where the event stands; None: no event asked for it, the gateway made it
    appended_ms  the broker's time of the event, ms since the epoch
    """

    payment: PaymentEvent
    source: Source | None
    appended_ms: int


class Known(NamedTuple):
    """What the tables say of a payment, in one look.

    entry    its own; None: nothing
    listed   its row among the open payments, where the entry is open
    state    the user's charge state
    held_by  payment_id of another charge that holds its business_ref; asked of new charges only
    """

    user_id: str
    payment_id: str
    entry: Entry | None
    listed: OpenPayment | None
    state: ChargeState | None
    held_by: str | None = None
