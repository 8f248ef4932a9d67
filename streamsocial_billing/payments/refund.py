"""Refunds: gives back a part of a charge, at most what it captured.

What a refund may take is reserved in the charge's entry, in the unit that calls the gateway (or, for one
that waited, in the unit that releases it). That unit commits after the call, so the reservation is there
whenever a committed refund is `unknown` or `parked`; a crash before takes back both, and the event does both
again. Who learns how it ended (a nudge, a webhook, a person) tells the settlement, whose hook moves the
reservation to `refunded_minor` or frees it, in the same unit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from faust_exactly_once import Event, current_unit
from streamsocial_billing.domain.decision import (
    DEDUP_RETENTION_MS,
    FINAL,
    Adopt,
    Charge,
    Refund,
    decide,
    past_window,
)
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.outcomes import TOO_OLD_TO_CALL, Verdict, account_forbids
from streamsocial_billing.domain.refund_rules import (
    CHARGE_UNKNOWN,
    EXCEEDS_CHARGE,
    UNKNOWN_CHARGE,
    Allowed,
    Charged,
    Held,
    Refused,
    after_end,
    judge,
    wish_of,
    with_reserved,
)
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway, RefundRequest
from streamsocial_billing.payments.charge import outcome_of
from streamsocial_billing.payments.record_outcome import Settlement
from streamsocial_billing.payments.reported_by_gateway import book_external
from streamsocial_billing.payments.unit_writer import Books
from streamsocial_billing.payments.waiting import Awaiting
from streamsocial_billing.settings import Settings
from tables.payments import PaymentEntry, is_full, is_small

logger = logging.getLogger(__name__)

CHARGE_MAY_COME_MS: Final = 600_000
"""How long a refund may have overtaken its charge (payments.md, "Refunds")."""
LOOK_AGAIN_MS: Final = 3_600_000
"""A refund that waits is released by its charge; only one that found no room in the list needs this look."""
NO_REF = "a refund names its charge"


class Refunds:
    """Handles refunds; adds itself to the settlement's hooks."""

    def __init__(
        self, settings: Settings, books: Books, gateways: Mapping[str, Gateway], settlement: Settlement
    ) -> None:
        self._settings = settings
        self._books = books
        self._gateways = gateways
        self._configured = frozenset(gateways)
        self._settlement = settlement
        self._awaiting = Awaiting(books)
        settlement.hooks.append(self.on_outcome)

    async def refund(self, event: Event, payment: PaymentEvent) -> None:
        """One refund on `payments`: exactly one result."""
        at_ms = now_ms()
        decision = decide(
            payment, self._books.entry(payment.user_id, payment.payment_id), now_ms=at_ms,
            appended_ms=event.timestamp, dedup_retention_ms=DEDUP_RETENTION_MS,
            configured_gateways=self._configured,
        )  # fmt: skip
        match decision:
            case Refund():
                await self._new(event, payment, decision, at_ms)
            case Adopt():
                self._adopt(event, payment, decision, at_ms)
            case Charge():
                raise RuntimeError(f"decided {decision} for a refund")
            case _:
                self._settlement.answer_known(event, payment, decision, account="", at_ms=at_ms)

    async def _new(self, event: Event, payment: PaymentEvent, decision: Refund, at_ms: int) -> None:
        """By the charge: call, wait or refuse; always one first result."""
        charge_id, doubt = _charge_of(payment.refund_of), not current_unit().surely_first
        match judge(wish_of(payment), self._books.entry(payment.user_id, charge_id)):
            case Allowed() as allowed:
                await self._call(event, payment, decision, allowed, charge_id)
            case Held(reason):
                entry = self._settlement.first_outcome(
                    event, payment, Verdict("unknown", reason), account="", at_ms=at_ms, doubt=doubt
                )
                self._hold(payment.user_id, payment.payment_id, entry, reason, at_ms)
            case Refused(reason, charge) if charge is not None and doubt:
                entry = self._settlement.first_outcome(
                    event, payment, Verdict("unknown", reason), account="", at_ms=at_ms, doubt=True
                )
                self._only_ask(payment.user_id, payment.payment_id, entry, charge, at_ms)
            case Refused(reason):
                self._settlement.first_outcome(
                    event, payment, Verdict("rejected", reason), account="", at_ms=at_ms
                )

    async def _call(
        self, event: Event, payment: PaymentEvent, decision: Refund, allowed: Allowed, charge_id: str
    ) -> None:
        """Reserve, call, write the outcome; the event on the log is the durable intent."""
        first = current_unit().surely_first
        charge, amount = allowed.charge, payment.amount_minor
        self._books.put(payment.user_id, charge_id, with_reserved(charge, amount))
        gateway = self._gateways[payment.gateway]
        await gateway.start()  # some know their account only when they have asked for it
        forbidden = account_forbids(gateway, charge["gateway_account"])
        found, attempts, gateway_ms = forbidden or TOO_OLD_TO_CALL, 0, None
        if forbidden is None and not past_window(event.timestamp, now_ms(), gateway.traits):
            request = RefundRequest(
                decision.idempotency_key, payment.user_id, payment.payment_id, decision.fingerprint,
                amount, payment.currency, allowed.charge_ref,
            )  # fmt: skip
            found, attempts, gateway_ms = await outcome_of(
                gateway, request, self._settings.gateway_deadline_s
            )
        self._settlement.first_outcome(
            event, payment, found, account=charge["gateway_account"] or gateway.account, at_ms=now_ms(),
            calls=attempts, gateway_ms=gateway_ms, doubt=not first, charge_ref=allowed.charge_ref,
            fingerprint=decision.fingerprint, reserved_minor=amount,
        )  # fmt: skip

    def _adopt(self, event: Event, payment: PaymentEvent, decision: Adopt, at_ms: int) -> None:
        """The gateway told of it first: an earlier delivery had called."""
        charge = self._books.entry(payment.user_id, _charge_of(payment.refund_of))
        entry = self._settlement.first_outcome(
            event, payment, decision.found, account=decision.gateway_account, at_ms=at_ms,
            charge_ref=charge["gateway_ref"] if charge is not None else None,
        )  # fmt: skip
        if entry["status"] not in FINAL:  # it has begun there: it only needs its charge, to be asked for
            held = entry.copy()
            held["held_since"] = at_ms
            self._look_again(payment.user_id, payment.payment_id, held, at_ms)

    # ---- waiting for the charge

    async def release(self, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int) -> None:
        """Look again at a refund that waits for its charge."""
        self._look_again(user_id, payment_id, entry, at_ms)

    def _look_again(self, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int) -> None:
        """Refuse it, make it an open refund that is due, or let it wait on; nobody is called here.

        So it fits into the charge's own unit: there is no moment at which a charge has its end while its
        refunds still wait for it. And a released refund is committed before its first call, so that the
        window of its gateway key has a beginning.
        """
        held_ms, begun = at_ms - (entry["held_since"] or at_ms), entry["gateway_ref"] is not None
        match judge(wish_of(entry), self._books.entry(user_id, _charge_of(entry["refund_of"]))):
            case Allowed() as allowed:
                self._release(user_id, payment_id, entry, allowed, at_ms)
            case Held(reason) if reason == UNKNOWN_CHARGE and not begun and held_ms >= CHARGE_MAY_COME_MS:
                self._reject(user_id, payment_id, entry, reason, at_ms)
            case Held(reason):
                self._hold(user_id, payment_id, entry, CHARGE_UNKNOWN if begun else reason, at_ms)
            case Refused(reason) if begun:
                error = f"the gateway has it as {entry['gateway_ref']}, though it is {reason}"
                found = Verdict("parked", "found_disagrees", ambiguous=True, error=error)
                self._settlement.settle(user_id, payment_id, entry, found, calls=0, at_ms=at_ms)
            case Refused(_, charge) if charge is not None and entry["ever_ambiguous"]:
                self._only_ask(user_id, payment_id, entry, charge, at_ms)
            case Refused(reason):
                self._reject(user_id, payment_id, entry, reason, at_ms)

    def _hold(self, user_id: str, payment_id: str, entry: PaymentEntry, reason: str, at_ms: int) -> None:
        held = entry.copy()
        since = held["held_since"] = entry["held_since"] or at_ms
        held["reason"] = reason
        due_at = since + CHARGE_MAY_COME_MS if reason == UNKNOWN_CHARGE else at_ms + LOOK_AGAIN_MS
        held["due_at"] = held["next_try_at"] = due_at
        self._books.keep(user_id, payment_id, held)
        self._awaiting.add_refund(user_id, _charge_of(entry["refund_of"]), payment_id)

    def _reject(self, user_id: str, payment_id: str, entry: PaymentEntry, reason: str, at_ms: int) -> None:
        self._settlement.settle(
            user_id, payment_id, entry, Verdict("rejected", reason), calls=0, at_ms=at_ms
        )

    def _release(
        self, user_id: str, payment_id: str, entry: PaymentEntry, allowed: Allowed, at_ms: int
    ) -> None:
        charge_id, amount = _charge_of(entry["refund_of"]), entry["amount_minor"]
        self._books.put(user_id, charge_id, with_reserved(allowed.charge, amount))
        released = entry.copy()
        released["reason"] = "released"
        released["reserved_minor"] = amount
        if not entry["ever_ambiguous"]:  # else a delivery that was lost may have called since it was appended
            released["window_from"] = at_ms
        self._make_due(user_id, payment_id, released, allowed.charge, at_ms)

    def _only_ask(
        self, user_id: str, payment_id: str, entry: PaymentEntry, charge: Charged, at_ms: int
    ) -> None:
        """There is no room for it, but a delivery that was lost may have been allowed it, may have called.

        Since then the room may have gone to a refund made at the gateway. It is asked for, never called.
        """
        asked = entry.copy()
        asked["reason"] = EXCEEDS_CHARGE
        asked["ask_only"] = True
        self._make_due(user_id, payment_id, asked, charge, at_ms)

    def _make_due(
        self, user_id: str, payment_id: str, entry: PaymentEntry, charge: Charged, at_ms: int
    ) -> None:
        """From here on it is an open payment like any other."""
        entry["held_since"] = None
        entry["charge_ref"] = charge["gateway_ref"]
        entry["gateway_account"] = charge["gateway_account"]
        entry["due_at"] = entry["next_try_at"] = at_ms
        self._books.keep(user_id, payment_id, entry)
        self._awaiting.drop_refund(user_id, _charge_of(entry["refund_of"]), payment_id)

    # ---- the settlement's hook

    def on_outcome(self, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int) -> None:
        """A charge has an outcome: what waits for it goes on. A refund has ended: so has its reservation."""
        if entry["action"] == "charge":
            self._charge_told(user_id, payment_id, at_ms)
        elif entry["status"] in FINAL:
            self._refund_ended(user_id, payment_id, entry)

    def _charge_told(self, user_id: str, charge_id: str, at_ms: int) -> None:
        if not self._awaiting.anything(user_id, charge_id):
            return  # nearly always
        refunded = self._awaiting.take_refunded(user_id, charge_id)
        if refunded:
            self._give_back(user_id, charge_id, freed_minor=0, refunded_minor=refunded)
        for told in self._awaiting.take_told(user_id, charge_id):
            charge = self._books.entry(user_id, charge_id)
            if is_full(charge):
                book_external(self._books, told, charge_id, charge, at_ms)
        for refund_id in self._awaiting.refunds(user_id, charge_id):
            refund = self._books.entry(user_id, refund_id)
            if is_full(refund) and refund["status"] == "unknown" and refund["held_since"] is not None:
                self._look_again(user_id, refund_id, refund, at_ms)

    def _refund_ended(self, user_id: str, payment_id: str, entry: PaymentEntry) -> None:
        charge_id, freed = _charge_of(entry["refund_of"]), entry["reserved_minor"]
        if entry["held_since"] is not None:
            self._awaiting.drop_refund(user_id, charge_id, payment_id)
        refunded = entry["amount_minor"] if entry["status"] == "succeeded" else 0
        if refunded or freed:
            self._give_back(user_id, charge_id, freed_minor=freed, refunded_minor=refunded)
        if freed:
            ended = entry.copy()
            ended["reserved_minor"] = 0
            self._books.put(user_id, payment_id, ended)

    def _give_back(self, user_id: str, charge_id: str, *, freed_minor: int, refunded_minor: int) -> None:
        """A refund ended: what it held is free, what it gave back counts, now or when the charge comes."""
        charge = self._books.entry(user_id, charge_id)
        if not (is_full(charge) or is_small(charge)):
            self._awaiting.add_refunded(user_id, charge_id, refunded_minor)
            return
        if charge["refunded_minor"] + refunded_minor > charge["amount_minor"]:
            logger.error(
                "%s/%s: more went back than was captured", user_id, charge_id, extra={"payment_id": charge_id}
            )
        changed = after_end(charge, freed_minor=freed_minor, refunded_minor=refunded_minor)
        self._books.put(user_id, charge_id, changed)


def _charge_of(refund_of: str | None) -> str:
    if refund_of is None:
        raise LookupError(NO_REF)
    return refund_of
