"""Handles the events of `payments`: load, decide, call, record, write, follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from faust_exactly_once import Event, find_unit
from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS, Decision, Execute, decide
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import ChargeRequest
from streamsocial_billing.domain.known import Known, Received
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.payments.bad_input import Reader
from streamsocial_billing.payments.calling import Call, call
from streamsocial_billing.payments.following import Follow
from streamsocial_billing.payments.record_outcome import record
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.settings import Settings
from tables.payments import Entry, Source, payment_key

logger = logging.getLogger(__name__)


class RefundHandler(Protocol):
    """What handles refunds."""

    async def refund(self, came: Received, known: Known, decision: Decision, at_ms: int) -> None:
        """One refund on `payments`, as it was decided: exactly one result."""


class Billing:
    """Handles one payment event at a time per user; different users run concurrently."""

    def __init__(
        self, settings: Settings, reader: Reader, writer: UnitWriter, gateways: Mapping[str, Gateway],
        refunds: RefundHandler, follow: Follow,
    ) -> None:  # fmt: skip
        self._deadline_s = settings.gateway_deadline_s
        self._reader = reader
        self._writer = writer
        self._gateways = gateways
        self._configured = frozenset(gateways)
        self._refunds = refunds
        self._follow = follow

    async def charge(self, event: Event) -> None:
        """One record of `payments`: exactly one result or one dead letter."""
        at_ms = now_ms()
        payment = await self._reader.read(event, PaymentEvent.from_bytes, at_ms)
        if payment is None:
            return
        source: Source = {"topic": event.topic, "partition": event.partition, "offset": event.offset}
        came = Received(payment, source, event.timestamp)
        known = self._writer.load(payment)
        decision = self._decide(payment, known, at_ms, came.appended_ms)
        if payment.action == "refund":
            await self._refunds.refund(came, known, decision, at_ms)
            return
        called, account = None, ""
        if type(decision) is Execute:
            called = await call(self._gateways[payment.gateway], self._plan(came, decision, at_ms))
            unit = find_unit()
            if unit is None or not unit.first_delivery:
                called = called.in_doubt(True)
            at_ms = now_ms()
        elif payment.gateway in self._gateways:
            account = self._gateways[payment.gateway].account
        change = record(came, known, decision, called, at_ms=at_ms, account=account)
        self._writer.write(change)
        self._follow(change)

    # ---- the rules, also for those who ask before there is an event

    def decide(self, payment: PaymentEvent, *, at_ms: int, appended_ms: int) -> Decision:
        """What this event leads to by what is known of it now: in a unit what the unit sees, else committed.

        `appended_ms` is the broker's time of the record, or now for one that is not appended yet. Raises
        LookupError outside a unit, if this worker does not hold the user's partition now.
        """
        entry = self.entry(payment.user_id, payment.payment_id)
        held_by = self._writer.held_by(payment) if entry is None else None
        known = _known(payment, entry, held_by)
        return self._decide(payment, known, at_ms, appended_ms)

    def decide_new(self, payment: PaymentEvent, *, at_ms: int) -> Decision:
        """The same for a payment of which nothing is known, by what this worker knows without its owner."""
        return self._decide(payment, _known(payment, None, None), at_ms, at_ms)

    def _decide(self, payment: PaymentEvent, known: Known, at_ms: int, appended_ms: int) -> Decision:
        name = payment.gateway
        gateway = self._gateways[name] if name in self._gateways else None
        return decide(
            payment, known.entry, now_ms=at_ms, appended_ms=appended_ms,
            dedup_retention_ms=DEDUP_RETENTION_MS, configured_gateways=self._configured,
            traits=None if gateway is None else gateway.traits, held_by=known.held_by,
        )  # fmt: skip

    def entry(self, user_id: str, payment_id: str) -> Entry | None:
        """What is known of a payment; LookupError as `decide`."""
        return self._writer.entry(user_id, payment_id)

    # ---- the phases

    def _plan(self, came: Received, decision: Execute, at_ms: int) -> Call:
        """The one call to make; the event on the log is its durable intent."""
        payment = came.payment
        request = ChargeRequest(
            decision.idempotency_key, payment.user_id, payment.payment_id, decision.fingerprint,
            payment.amount_minor, payment.currency, payment.payment_method, payment.product,
        )  # fmt: skip
        too_old = self._gateways[payment.gateway].traits.past_window(came.appended_ms, at_ms)
        return Call(request, "", too_old, self._deadline_s)


def _known(payment: PaymentEvent, entry: Entry | None, held_by: str | None) -> Known:
    """What is enough to decide."""
    key = payment_key(payment.user_id, payment.payment_id)
    return Known(payment.user_id, payment.payment_id, key, entry, state=None, held_by=held_by)
