"""Handles refunds: gives back a part of a charge, at most what it captured.

What a refund may take is reserved in the charge's entry, in the unit that calls the gateway (or, for one
that waited, in the unit that releases it). That unit commits after the call, so the reservation is there
whenever a committed refund is `unknown` or `parked`; a crash before takes back both, and the event does both
again. However it ends (by a retry, a webhook, a person), what follows from that (following.py) moves the
reservation to `refunded_minor` or frees it, in the same unit.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from faust_exactly_once import current_unit
from streamsocial_billing.domain.decision import Adopt, Decision, Execute
from streamsocial_billing.domain.gateway_calls import RefundRequest
from streamsocial_billing.domain.known import Known, Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import first_entry
from streamsocial_billing.domain.refund_rules import Allowed, Held, Refused, judge, moved, wish_of
from streamsocial_billing.domain.statuses import FINAL
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.payments.calling import Call, call
from streamsocial_billing.payments.following import Follow
from streamsocial_billing.payments.record_outcome import Change, changed_row, record, record_first
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.payments.waiting_refunds import (
    asked_entry,
    charge_of,
    held_entry,
    listed,
    look_again,
)
from streamsocial_billing.settings import Settings


class Refunds:
    """Handles one refund at a time per user; different users run concurrently."""

    def __init__(
        self, settings: Settings, writer: UnitWriter, gateways: Mapping[str, Gateway], follow: Follow
    ) -> None:
        self._deadline_s = settings.gateway_deadline_s
        self._writer = writer
        self._gateways = gateways
        self._follow = follow

    async def refund(self, came: Received, known: Known, decision: Decision, at_ms: int) -> None:
        """One refund on `payments`, as it was decided: exactly one result."""
        match decision:
            case Execute():
                change = await self._new(came, known, decision, at_ms)
            case Adopt(found, account):
                self._adopt(came, known, Called(found, account), at_ms)
                return
            case _:
                change = record(came, known, decision, None, at_ms)
        self._writer.write(change)
        self._follow(change)

    async def _new(self, came: Received, known: Known, decision: Execute, at_ms: int) -> Change:
        """By the charge: call, wait or refuse; always one first result."""
        user_id, charge_id = known.user_id, charge_of(came.payment.refund_of)
        doubt = not current_unit().first_delivery
        match judge(wish_of(came.payment), self._writer.entry(user_id, charge_id)):
            case Allowed() as allowed:
                called = (await self._call(came, decision, allowed, at_ms)).in_doubt(doubt)
                entry = first_entry(came, called, now_ms(), decision.fingerprint)
                entry["charge_ref"], entry["reserved_minor"] = allowed.charge_ref, came.payment.amount_minor
                charge = moved(allowed.charge, held_minor=came.payment.amount_minor)
                held = changed_row(user_id, charge_id, charge)
                return replace(record_first(came, known, entry, called, held), charge=charge)
            case Held(reason):
                called = Called(Verdict("unknown", reason, ambiguous=doubt))
                waits = held_entry(first_entry(came, called, at_ms), reason, at_ms)
                waiting = self._writer.awaited(user_id, charge_id)
                return record_first(came, known, waits, called, *listed(known, waits, waiting))
            case Refused(reason, full) if full is not None and doubt:
                called = Called(Verdict("unknown", reason, ambiguous=True))
                asked = asked_entry(first_entry(came, called, at_ms), full, at_ms)
                return record_first(came, known, asked, called)
            case Refused(reason):
                called = Called(Verdict("rejected", reason))
                return record_first(came, known, first_entry(came, called, at_ms), called)

    async def _call(
        self, came: Received, decision: Execute, allowed: Allowed, at_ms: int
    ) -> Called:
        """The one call; the event on the log is its durable intent."""
        payment, gateway = came.payment, self._gateways[came.payment.gateway]
        request = RefundRequest(
            idempotency_key=decision.idempotency_key, user_id=payment.user_id, payment_id=payment.payment_id,
            fingerprint=decision.fingerprint, amount_minor=payment.amount_minor, currency=payment.currency,
            charge_ref=allowed.charge_ref,
        )  # fmt: skip
        account = allowed.charge["gateway_account"]
        too_old = gateway.traits.past_window(came.appended_ms, at_ms)
        return await call(gateway, Call(request, account, too_old, self._deadline_s))

    def _adopt(self, came: Received, known: Known, called: Called, at_ms: int) -> None:
        """The gateway reported it first: an earlier delivery had called."""
        user_id, charge_id = known.user_id, charge_of(came.payment.refund_of)
        charge = self._writer.entry(user_id, charge_id)
        entry = first_entry(came, called, at_ms)
        entry["charge_ref"] = charge["gateway_ref"] if charge is not None else None
        change = record_first(came, known, entry, called)
        self._writer.write(change)
        self._follow(change)
        if entry["status"] in FINAL:
            return
        held = entry.copy()  # it has begun there: it only needs its charge, to be asked for
        held["held_since"] = at_ms
        waiting = self._writer.awaited(user_id, charge_id)
        known = self._writer.look_up(user_id, known.payment_id)
        change = look_again(known, held, charge, waiting, at_ms)
        self._writer.write(change)
        self._follow(change)
