"""Handles the events of `payments`: load, decide, call, record, write, follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from faust_exactly_once import Event, current_unit
from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS, Charge, Decision, decide
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import ChargeRequest
from streamsocial_billing.domain.known import Known
from streamsocial_billing.domain.outcomes import Called
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.payments.bad_input import Reader
from streamsocial_billing.payments.calling import Call, call
from streamsocial_billing.payments.following import Follow
from streamsocial_billing.payments.record_outcome import record
from streamsocial_billing.payments.unit_writer import Books, received
from streamsocial_billing.settings import Settings
from tables.payments import Entry

logger = logging.getLogger(__name__)


class RefundHandler(Protocol):
    """What handles refunds."""

    async def refund(self, event: Event, payment: PaymentEvent) -> None:
        """One refund on `payments`: exactly one result."""


class Billing:
    """Handles one payment event at a time per user; different users run concurrently."""

    def __init__(
        self, settings: Settings, reader: Reader, books: Books, gateways: Mapping[str, Gateway],
        refunds: RefundHandler, follow: Follow,
    ) -> None:  # fmt: skip
        self._deadline_s = settings.gateway_deadline_s
        self._reader = reader
        self._books = books
        self._gateways = gateways
        self._configured = frozenset(gateways)
        self._refunds = refunds
        self._follow = follow

    async def charge(self, event: Event) -> None:
        """One record of `payments`: exactly one result or one dead letter."""
        at_ms = now_ms()
        payment = await self._reader.read(event, payment_of, at_ms)
        if payment is None:
            return
        if payment.action == "refund":
            await self._refunds.refund(event, payment)
            return
        known = self._books.load(payment)
        decision = self._decide(payment, known, at_ms, event.timestamp)
        called, account = None, ""
        if isinstance(decision, Charge):
            called = await self._call(event, payment, decision)
            at_ms = now_ms()
        elif payment.gateway in self._gateways:
            account = self._gateways[payment.gateway].account
        change = record(
            received=received(event, payment), known=known, decision=decision, called=called, at_ms=at_ms,
            account=account,
        )  # fmt: skip
        self._books.write(change)
        self._follow(change)

    # ---- the rules, also for those who ask before there is an event

    def decide(self, payment: PaymentEvent, *, at_ms: int, appended_ms: int) -> Decision:
        """What this event leads to by what is known of it now: in a unit what the unit sees, else committed.

        `appended_ms` is the broker's time of the record, or now for one that is not appended yet. Raises
        LookupError outside a unit, if this worker does not hold the user's partition now.
        """
        entry = self.entry(payment.user_id, payment.payment_id)
        held_by = self._books.held_by(payment) if entry is None else None
        known = Known(
            user_id=payment.user_id, payment_id=payment.payment_id, entry=entry, listed=None, state=None,
            held_by=held_by,
        )  # fmt: skip
        return self._decide(payment, known, at_ms, appended_ms)

    def decide_new(self, payment: PaymentEvent, *, at_ms: int) -> Decision:
        """The same for a payment of which nothing is known, by what this worker knows without its owner."""
        nothing = Known(payment.user_id, payment.payment_id, None, None, None)
        return self._decide(payment, nothing, at_ms, at_ms)

    def _decide(self, payment: PaymentEvent, known: Known, at_ms: int, appended_ms: int) -> Decision:
        gateway = self._gateways.get(payment.gateway)
        return decide(
            payment, known.entry, now_ms=at_ms, appended_ms=appended_ms,
            dedup_retention_ms=DEDUP_RETENTION_MS, configured_gateways=self._configured,
            traits=None if gateway is None else gateway.traits, held_by=known.held_by,
        )  # fmt: skip

    def entry(self, user_id: str, payment_id: str) -> Entry | None:
        """What is known of a payment; LookupError as `decide`."""
        return self._books.entry(user_id, payment_id)

    # ---- the phases

    async def _call(self, event: Event, payment: PaymentEvent, decision: Charge) -> Called:
        """The one call; the event on the log is its durable intent."""
        doubt = not current_unit().first_delivery
        request = ChargeRequest(
            idempotency_key=decision.idempotency_key, user_id=payment.user_id, payment_id=payment.payment_id,
            fingerprint=decision.fingerprint, amount_minor=payment.amount_minor, currency=payment.currency,
            payment_method=payment.payment_method,
        )  # fmt: skip
        called = await call(
            self._gateways[payment.gateway], Call(request, "", event.timestamp, self._deadline_s)
        )
        return called.in_doubt(doubt) if doubt else called


def payment_of(event: Event, at_ms: int) -> PaymentEvent:
    """What a record of `payments` says; raises BadInput."""
    return PaymentEvent.from_bytes(event.value, key=event.key, now_ms=at_ms)
