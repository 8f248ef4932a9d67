"""The billing agent: reads payment events, asks the decision, calls the gateway, writes the unit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from faust_exactly_once import Event, current_unit, partition_of
from streamsocial_billing.domain.decision import (
    ACTIONS,
    DEDUP_RETENTION_MS,
    Charge,
    Decision,
    Refund,
    decide,
    past_window,
)
from streamsocial_billing.domain.events import BadInput, PaymentEvent
from streamsocial_billing.domain.outcomes import INTERNAL_ERROR, TOO_OLD_TO_CALL, Verdict, verdict
from streamsocial_billing.domain.times import now_ms as now_ms
from streamsocial_billing.gateways.base import ChargeRequest, Gateway, Outcome, RefundRequest, call_until
from streamsocial_billing.payments.record_outcome import Settlement
from streamsocial_billing.payments.unit_writer import Books as Books
from streamsocial_billing.settings import Settings
from tables.payments import Entry, PaymentEntry

logger = logging.getLogger(__name__)


class RefundHandler(Protocol):
    """What handles refunds."""

    async def refund(self, event: Event, payment: PaymentEvent) -> None:
        """One refund on `payments`: exactly one result."""

    async def release(self, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int) -> None:
        """Look again at a refund that waits for its charge (`held_since` is set)."""


class Billing:
    """Handles one payment event at a time per user; different users run concurrently.

    Without `refunds` a refund is refused as an unsupported action.
    """

    def __init__(
        self, settings: Settings, books: Books, gateways: Mapping[str, Gateway],
        partitions: Callable[[], int], settlement: Settlement, refunds: RefundHandler | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._books = books
        self._gateways = gateways
        self._configured = frozenset(gateways)
        self._partitions = partitions
        self._settlement = settlement
        self._refunds = refunds
        self._actions = ACTIONS if refunds is not None else ACTIONS - {"refund"}

    async def charge(self, event: Event) -> None:
        """One record of `payments`: exactly one result or one dead letter."""
        self._books.handled(event)
        at_ms = now_ms()
        try:
            payment = PaymentEvent.from_bytes(event.value, key=event.key, now_ms=at_ms)
            check_partition(event, self._partitions())
        except BadInput as bad:
            await self._books.bury(event, bad, at_ms)
            return
        if payment.action == "refund" and self._refunds is not None:
            await self._refunds.refund(event, payment)
            return
        await self._charge(event, payment, at_ms)

    def decide(self, payment: PaymentEvent, *, at_ms: int, appended_ms: int) -> Decision:
        """What this event leads to by what is known of it now: in a unit what the unit sees, else committed.

        `appended_ms` is the broker's time of the record, or now for one that is not appended yet. Raises
        LookupError outside a unit, if this worker does not hold the user's partition now.
        """
        entry = self.entry(payment.user_id, payment.payment_id)
        held_by = self._books.held_by(payment) if entry is None else None
        return self._decided(payment, entry, held_by, at_ms, appended_ms)

    def decide_new(self, payment: PaymentEvent, *, at_ms: int) -> Decision:
        """The same for a payment of which nothing is known, by what this worker knows without its owner."""
        return self._decided(payment, None, None, at_ms, at_ms)

    def entry(self, user_id: str, payment_id: str) -> Entry | None:
        """What is known of a payment; LookupError as `decide`."""
        return self._books.entry(user_id, payment_id)

    def _decided(
        self, payment: PaymentEvent, entry: Entry | None, held_by: str | None, at_ms: int, appended_ms: int
    ) -> Decision:
        gateway = self._gateways.get(payment.gateway)
        return decide(
            payment, entry, now_ms=at_ms, appended_ms=appended_ms,
            dedup_retention_ms=DEDUP_RETENTION_MS, configured_gateways=self._configured,
            traits=gateway.traits if gateway is not None else None, held_by=held_by, actions=self._actions,
        )  # fmt: skip

    async def _charge(self, event: Event, payment: PaymentEvent, at_ms: int) -> None:
        gateway = self._gateways.get(payment.gateway)
        decision = self.decide(payment, at_ms=at_ms, appended_ms=event.timestamp)
        match decision:
            case Charge() if gateway is not None:
                await self._call(event, payment, decision, gateway)
            case Charge() | Refund():
                raise RuntimeError(f"decided {decision} for {payment.action} at {payment.gateway}")
            case _:
                account = gateway.account if gateway is not None else ""
                self._settlement.answer_known(event, payment, decision, account=account, at_ms=at_ms)

    async def _call(self, event: Event, payment: PaymentEvent, decision: Charge, gateway: Gateway) -> None:
        """Call the gateway, then write outcome, entry, state; the event on the log is the durable intent."""
        first = current_unit().surely_first
        found, attempts, gateway_ms = TOO_OLD_TO_CALL, 0, None
        if not past_window(event.timestamp, now_ms(), gateway.traits):
            request = ChargeRequest(
                decision.idempotency_key, payment.user_id, payment.payment_id, decision.fingerprint,
                payment.amount_minor, payment.currency, payment.payment_method,
            )  # fmt: skip
            found, attempts, gateway_ms = await outcome_of(
                gateway, request, self._settings.gateway_deadline_s
            )
        self._settlement.first_outcome(
            event, payment, found, account=gateway.account, at_ms=now_ms(), calls=attempts,
            gateway_ms=gateway_ms, doubt=not first, fingerprint=decision.fingerprint,
        )  # fmt: skip


async def outcome_of(
    gateway: Gateway, request: ChargeRequest | RefundRequest, deadline_s: float
) -> tuple[Verdict, int, int | None]:
    """Repeat with the same key until the deadline; whatever goes wrong from here on is `unknown`.

    Returns the verdict, the calls made, the milliseconds spent inside them (None: there was none).
    """

    async def call(timeout_s: float) -> Outcome:
        if isinstance(request, ChargeRequest):
            return await gateway.charge(request, timeout_s=timeout_s)
        return await gateway.refund(request, timeout_s=timeout_s)

    try:
        await gateway.start()
        outcome, attempts, gateway_ms = await call_until(
            call, deadline_s=deadline_s, clock=time.monotonic, sleep=asyncio.sleep
        )
        found = verdict(outcome)
    except Exception:
        logger.exception("gateway %s: internal error after the call had started", gateway.name)
        return INTERNAL_ERROR, 1, None
    if found.error is not None and not found.waits:  # else the gatekeeper has said it once for all
        logger.warning(
            "%s/%s is %s: %s (%s)",
            request.user_id, request.payment_id, found.status, found.error, gateway,
            extra={"user_id": request.user_id, "payment_id": request.payment_id, "status": found.status},
        )  # fmt: skip
    return found, attempts, gateway_ms if attempts else None


def check_partition(event: Event, partitions: int) -> None:
    """Refuse an event that murmur2 of its key puts elsewhere: its user would have two states."""
    if event.key is not None and partition_of(event.key, partitions) != event.partition:
        raise BadInput(
            "wrong_partition",
            f"its key belongs to partition {partition_of(event.key, partitions)}, it is in {event.partition}",
        )
