"""Handles the triggers on `payments-retry`: an open payment that is due is called again, or asked for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from faust_exactly_once import Event, current_unit
from streamsocial_billing.domain.decision import is_due
from streamsocial_billing.domain.events import RetryTrigger
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.gateway_calls import ChargeRequest, RefundRequest
from streamsocial_billing.domain.known import Known
from streamsocial_billing.domain.next_step import (
    Ask,
    Cancel,
    GiveUp,
    Reject,
    Repeat,
    Terms,
    Tried,
    Wait,
    after_doubt,
    next_step,
)
from streamsocial_billing.domain.outcomes import INTERNAL_ERROR, Called, Verdict, question, verdict_of_answer
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.payments.bad_input import Reader
from streamsocial_billing.payments.calling import Call, ask, call, cancel
from streamsocial_billing.payments.following import Following
from streamsocial_billing.payments.record_outcome import Change, record_again
from streamsocial_billing.payments.retention import swept
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.settings import Settings
from tables.payments import PaymentEntry, is_full

logger = logging.getLogger(__name__)

GAVE_UP = Verdict("failed", "gave_up")

OnTrigger = Callable[[str, str, int], Awaitable[None]]
"""What a trigger of another kind calls: user_id, payment_id, ms since the epoch."""


class Resolver:
    """Handles one trigger: acts only on what is due in the tables, so lost or doubled triggers do no harm.

    `kinds`: what handles triggers that are not about a payment, by their `kind`.
    """

    def __init__(
        self, settings: Settings, reader: Reader, writer: UnitWriter, gateways: Mapping[str, Gateway],
        following: Following, kinds: Mapping[str, OnTrigger],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._reader = reader
        self._writer = writer
        self._gateways = gateways
        self._following = following
        self._kinds = kinds

    async def resolve(self, event: Event) -> None:
        """One record of `payments-retry`."""
        at_ms = now_ms()
        trigger = await self._reader.read(event, trigger_of, at_ms)
        if trigger is None:
            return
        if trigger.kind == "payment":
            await self._payment(trigger.user_id, trigger.payment_id, at_ms)
        elif trigger.kind in self._kinds:
            await self._kinds[trigger.kind](trigger.user_id, trigger.payment_id, at_ms)

    async def _payment(self, user_id: str, payment_id: str, at_ms: int) -> None:
        known = self._writer.look_up(user_id, payment_id)
        entry = known.entry
        if not is_full(entry) or not is_due(entry, at_ms):
            rows = swept(user_id, payment_id, entry, self._writer.named(user_id, entry), at_ms)
            self._writer.write(Change(user_id, payment_id, at_ms, rows))
        elif entry["held_since"] is not None:
            self._following.look_again(user_id, payment_id, at_ms)
        else:
            called = await self._call(known, entry)
            patience_ms = self._settings.authentication_ms
            change = record_again(known, entry, called, now_ms(), patience_ms=patience_ms)
            self._writer.write(change)
            self._following.follow(change)

    async def _call(self, known: Known, entry: PaymentEntry) -> Called:
        """What the payment is now, with the calls that it took.

        The route and the account are part of the payment: it goes nowhere else, it waits with an alarm.
        """
        gateway = self._gateways.get(entry["gateway"])
        if gateway is None:
            error = f"gateway {entry['gateway']} is not configured"
            return _logged(known, Called(Verdict("unknown", "gateway_not_configured", error=error)))
        terms = Terms(
            now_ms(), gateway.traits, self._settings.give_up_after_s * 1000,
            not current_unit().first_delivery, self._settings.authentication_ms,
        )  # fmt: skip
        call_s = self._settings.gateway_deadline_s / 2  # a trigger makes two calls at most
        called = await Attempt(known, entry, gateway, call_s).run(terms)
        if called.forbidden:
            return _logged(known, called)
        return called.in_doubt(terms.in_doubt)


def trigger_of(value: bytes | None, *, key: bytes | None, now_ms: int) -> RetryTrigger:
    """What a record of `payments-retry` says; raises BadInput."""
    trigger = RetryTrigger.from_bytes(value)
    if key != trigger.user_id.encode():
        raise BadInput("key_mismatch", "the record key is not the trigger's user_id")
    return trigger


def _logged(known: Known, called: Called) -> Called:
    if not called.found.waits:
        logger.error(
            "payment %s waits: %s", known.payment_id, called.found.error,
            extra={"payment_id": known.payment_id},
        )  # fmt: skip
    return called


class Attempt:
    """One try of an open payment: does what `next_step` says, until that is to wait or to end it."""

    def __init__(self, known: Known, entry: PaymentEntry, gateway: Gateway, call_s: float) -> None:
        self._user_id = known.user_id
        self._payment_id = known.payment_id
        self._entry = entry
        self._gateway = gateway
        self._call_s = call_s
        self._account = entry["gateway_account"]

    async def run(self, terms: Terms) -> Called:
        """What the payment is now, with the calls (not the questions) that it took."""
        tried, calls = Tried(), 0
        while True:
            match next_step(self._entry, tried, terms):
                case Repeat():
                    called = await self._repeat()
                    if called.forbidden:
                        return called
                    self._account, calls = called.account, calls + called.calls
                    tried = tried._replace(repeated=after_doubt(self._entry, called.found))
                case Ask():
                    asked = await self._ask()
                    if asked.forbidden:
                        return asked
                    self._account, tried = asked.account, tried._replace(asked=asked.found)
                case Cancel():
                    ended = await self._ask(end=True)
                    if ended.forbidden:
                        return ended
                    tried = tried._replace(canceled=ended.found)
                case GiveUp():
                    return Called(GAVE_UP, self._account, calls)
                case Reject(reason):
                    return Called(Verdict("rejected", reason), self._account, calls)
                case Wait(found):
                    return Called(found, self._account, calls)

    async def _repeat(self) -> Called:
        """The same call with the same key."""
        request = self._request()
        if request is None:
            logger.error("payment %s: its refund does not name its charge at the gateway", self._payment_id)
            return Called(INTERNAL_ERROR, self._account, 1)
        return await call(self._gateway, Call(request, self._account, False, self._call_s, once=True))

    async def _ask(self, *, end: bool = False) -> Called:
        """What the gateway has under our reference; `end`: after it was asked to cancel it."""
        query, waits = question(self._user_id, self._payment_id, self._entry), "authentication" in self._entry
        asked = await (cancel if end else ask)(self._gateway, query, self._account, self._call_s)
        if asked.forbidden is not None:
            return Called(asked.forbidden, asked.account, forbidden=True)
        if asked.answer is None:
            return Called(Verdict("unknown", self._entry["reason"], error="internal_error"), asked.account)
        found = verdict_of_answer(asked.answer, query, self._entry["reason"], waits=waits)
        return Called(found, asked.account)

    def _request(self) -> ChargeRequest | RefundRequest | None:
        """The same as at the first call; None: it cannot be made."""
        entry, ids = self._entry, (self._user_id, self._payment_id)
        key = gateway_key_of(self._user_id, entry["action"], self._payment_id)
        same = key, *ids, entry["fingerprint"], entry["amount_minor"], entry["currency"]
        if entry["action"] == "charge":
            return ChargeRequest(*same, entry["payment_method"], entry["product"])
        return None if entry["charge_ref"] is None else RefundRequest(*same, entry["charge_ref"])
