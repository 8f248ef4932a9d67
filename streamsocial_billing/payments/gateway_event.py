"""What a gateway tells of a payment takes effect: the agent on `gateway-events`.

Our key makes one outcome for each payment, so what is told of it, by a webhook or by reconciliation, is
taken at its word where it agrees on amount, currency, gateway; nothing has to be asked. A final status never
changes, nothing told later lowers it, so order and repetition do not matter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import orjson
from prometheus_client import Counter

from faust_exactly_once import Event
from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.known import Known
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.payments.bad_input import Reader
from streamsocial_billing.payments.following import Follow
from streamsocial_billing.payments.record_outcome import Change, Row, entry_row, record_again
from streamsocial_billing.payments.reported_by_gateway import book_external, book_refund_failed
from streamsocial_billing.payments.unit_writer import Books
from streamsocial_billing.payments.waiting import awaited_row, with_told
from tables.gateway_events import SeenEvent, seen_key
from tables.payments import Entry, ObservedEntry, PaymentEntry, SmallEntry, is_full, is_observed, is_small

logger = logging.getLogger(__name__)

RANK: Final = {"pending": 0, "declined": 1, "succeeded": 2}
"""What is told never lowers what was told before: that something moved outweighs everything else."""
REFUND_RANK: Final = {"pending": 0, "succeeded": 1, "declined": 2}
"""Of one refund: it may fail after it succeeded, never the other way round."""

GATEWAY_TOLD: Final = Counter(
    "billing_gateway_told",
    "Messages of gateways by what they did; `contradicts` needs a person.",
    ("gateway", "effect"),
    registry=None,
)
"""Registered by the page of metrics. A unit that runs again counts again."""


class Observer:
    """Handles one message of a gateway at a time per user."""

    def __init__(
        self, reader: Reader, books: Books, gateways: Mapping[str, Gateway], follow: Follow
    ) -> None:
        self._reader = reader
        self._books = books
        self._gateways = gateways
        self._follow = follow

    async def observe(self, event: Event) -> None:
        """One record of `gateway-events`: its effect once, or one dead letter."""
        at_ms = now_ms()
        told = await self._reader.read(event, told_of, at_ms)
        if told is None:
            return
        seen = seen_key(told.user_id, told.gateway, told.event_id)
        if self._books.reported_before(seen):
            effect = "repeated"
        else:
            self._put(told.user_id, told.payment_id, at_ms, Row("gateway_events", seen, {"at": at_ms}, None))
            effect = self._effect(told, at_ms)
        GATEWAY_TOLD.labels(told.gateway, effect).inc()

    def _put(self, user_id: str, payment_id: str | None, at_ms: int, *rows: Row) -> None:
        self._books.write(Change(user_id, payment_id or "", at_ms, rows))

    async def forget(self, user_id: str, name: str, at_ms: int) -> None:
        """A nudge of the sweep: drop a message (`gateway:event_id`) whose retention is over."""
        key = f"{user_id}/{name}"
        seen = self._books.reported_before(key)
        if seen is not None and _is_forgettable(seen, at_ms):
            self._put(user_id, None, at_ms, Row("gateway_events", key, None))

    def _effect(self, told: GatewayEvent, at_ms: int) -> str:
        payment_id = told.payment_id
        if payment_id is not None and told.kind != "dispute":
            if told.ref == gateway_key_of(told.user_id, told.kind, payment_id):
                return self._ours(told, payment_id, at_ms)
        if told.kind != "charge" and told.charge_id is not None:
            return self._external(told, told.charge_id, at_ms)
        logger.info(
            "%s %s of %s at %s is not ours: ignored",
            told.kind, told.gateway_ref, told.user_id, told.gateway,
        )  # fmt: skip
        return "foreign"

    def _external(self, told: GatewayEvent, charge_id: str, at_ms: int) -> str:
        """A refund or dispute made at the gateway; it waits for the charge's own event, if need be."""
        charge = self._books.entry(told.user_id, charge_id)
        if is_full(charge) or is_small(charge):
            return book_external(self._books, told, charge_id, charge, at_ms)
        waiting = with_told(self._books.awaited(told.user_id, charge_id), told, charge_id)
        if waiting is not None:
            self._put(told.user_id, charge_id, at_ms, awaited_row(told.user_id, charge_id, waiting))
        return "waits"

    def _ours(self, told: GatewayEvent, payment_id: str, at_ms: int) -> str:
        known = self._books.look_up(told.user_id, payment_id)
        entry = known.entry
        if not (is_full(entry) or is_small(entry)):
            return self._before_its_event(told, payment_id, entry if is_observed(entry) else None, at_ms)
        if entry["action"] != told.kind:
            return _contradicts(told, payment_id, entry)
        if is_full(entry) and entry["status"] in OPEN:
            return self._open(told, known, entry, at_ms)
        if told.kind == "refund" and entry["gateway_ref"] in (None, told.gateway_ref):
            effect = self._refund_ended(told, payment_id, entry, at_ms)
            if effect is not None:
                return effect
        return _final(told, payment_id, entry)

    def _refund_ended(
        self, told: GatewayEvent, payment_id: str, entry: PaymentEntry | SmallEntry, at_ms: int
    ) -> str | None:
        """What is told of a refund of ours that has its outcome; None: nothing that is special to refunds."""
        match entry["status"], told.status:
            case "declined", "succeeded" if entry["gateway_ref"] is not None and _agrees(told, entry):
                return "known"  # older news: a refund that failed has failed for good
            case "succeeded", "declined":
                # an entry that an earlier release made small does not say its charge; a repair does
                charge_id = entry.get("refund_of") or told.charge_id
                if charge_id is None or not _agrees(told, entry):
                    return _contradicts(told, payment_id, entry)
                return book_refund_failed(
                    books=self._books, told=told, refund_id=payment_id, refund=entry, charge_id=charge_id,
                    at_ms=at_ms,
                )  # fmt: skip
        return None

    def _before_its_event(
        self, told: GatewayEvent, payment_id: str, before: ObservedEntry | None, at_ms: int
    ) -> str:
        """Its event adopts what stands here; until then the highest status counts."""
        if before is not None:
            had = before["action"], before["gateway"], before["amount_minor"], before["currency"]
            if had != (told.kind, told.gateway, told.amount_minor, told.currency):
                return _contradicts(told, payment_id, before)
            same_refund = told.kind == "refund" and told.gateway_ref == before["gateway_ref"]
            rank = REFUND_RANK if same_refund else RANK
            if rank[told.status] <= rank[before["seen"]]:
                return "known"
        gateway = self._gateways.get(told.gateway)
        account = told.account or (gateway.account if gateway is not None else "")
        observed: ObservedEntry = {
            "status": "observed", "seen": told.status, "reason": told.reason, "action": told.kind,
            "gateway": told.gateway, "gateway_account": account, "gateway_ref": told.gateway_ref,
            "amount_minor": told.amount_minor, "currency": told.currency, "soft": told.soft,
            "observed_at": before["observed_at"] if before is not None else at_ms,
        }  # fmt: skip
        self._put(told.user_id, payment_id, at_ms, entry_row(told.user_id, payment_id, observed))
        return "observed"

    def _open(self, told: GatewayEvent, known: Known, entry: PaymentEntry, at_ms: int) -> str:
        """What was open is settled, with one final record; what disagrees waits for a person."""
        if not _agrees(told, entry):
            if entry["status"] == "parked":
                return _contradicts(told, known.payment_id, entry)
            error = f"{told.gateway} reported {told.gateway_ref} with {told.amount_minor} {told.currency}"
            found = Verdict("parked", "found_disagrees", ambiguous=True, error=error)
        elif told.status == "succeeded":
            found = Verdict("succeeded", None, told.gateway_ref)
        elif told.status == "declined":
            found = Verdict("declined", told.reason or "declined", told.gateway_ref, soft=told.soft)
        else:
            return "noted"
        change = record_again(known, entry, Called(found), at_ms)
        self._books.write(change)
        self._follow(change)
        return "parked" if found.status == "parked" else "settled"


def told_of(value: bytes | None, *, key: bytes | None, now_ms: int) -> GatewayEvent:
    """What a record of `gateway-events` says; raises BadInput."""
    return GatewayEvent.from_bytes(value, key=key)


def is_forgettable(value: bytes, at_ms: int) -> bool:
    """True once no record of this message can be left on `gateway-events`, which keeps 30 days."""
    return _is_forgettable(orjson.loads(value), at_ms)


def _is_forgettable(seen: SeenEvent, at_ms: int) -> bool:
    return at_ms - seen["at"] > DEDUP_RETENTION_MS


def _agrees(told: GatewayEvent, entry: PaymentEntry | SmallEntry) -> bool:
    seen = told.amount_minor, told.currency, told.gateway
    return seen == (entry["amount_minor"], entry["currency"], entry["gateway"])


def _final(told: GatewayEvent, payment_id: str, entry: PaymentEntry | SmallEntry) -> str:
    """A final payment stays as it is; money that moved without the books knowing it is said aloud."""
    if told.status != "succeeded":
        if told.status == "declined" and entry["status"] == "succeeded":
            logger.warning(
                "%s/%s succeeded; a later message says declined (%s, %s): it stays succeeded",
                told.user_id, payment_id, told.reason, told.gateway_ref, extra={"payment_id": payment_id},
            )  # fmt: skip
        return "known"
    same = entry["gateway_ref"] in (None, told.gateway_ref)
    if entry["status"] == "succeeded" and same and _agrees(told, entry):
        return "known"
    return _contradicts(told, payment_id, entry)


def _contradicts(told: GatewayEvent, payment_id: str, entry: Entry) -> str:
    """Nothing changes; reconciliation finds it too."""
    logger.error(
        "%s/%s is %s (%s, %d %s, %s); %s reports a %s that is %s (%s, %d %s): a person has to look",
        told.user_id, payment_id, entry["status"], entry["action"], entry["amount_minor"],
        entry["currency"], entry["gateway_ref"], told.gateway, told.kind, told.status, told.gateway_ref,
        told.amount_minor, told.currency, extra={"payment_id": payment_id},
    )  # fmt: skip
    return "contradicts"
