"""What is there before a payment is decided: its event, what the tables say of it."""

from __future__ import annotations

from msgspec import Struct

from streamsocial_billing.domain.events import PaymentEvent
from tables.awaited_charges import AwaitedCharge
from tables.business_refs import BusinessRef
from tables.charges import AnyState
from tables.open_payments import OpenPayment
from tables.payments import Entry, Source


class Received(Struct, frozen=True):
    """A payment as its event brought it.

    source       where the event stands; None: no event asked for it, the gateway made it
    appended_ms  the broker's time of the event, ms since the epoch
    """

    payment: PaymentEvent
    source: Source | None
    appended_ms: int


class Known(Struct, frozen=True):
    """What the tables say of a payment, in one look.

    key      of its rows
    entry    its own; None: nothing
    state    the user's charge state
    listed   its row among the open payments, where the entry is open
    waiting  what waits for its outcome, where it is a charge that has none
    named    the row of its business_ref; asked of new charges only
    held_by  payment_id of another charge that holds it
    """

    user_id: str
    payment_id: str
    key: str
    entry: Entry | None
    state: AnyState | None
    listed: OpenPayment | None = None
    waiting: AwaitedCharge | None = None
    named: BusinessRef | None = None
    held_by: str | None = None
