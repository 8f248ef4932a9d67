"""What a gateway reports of a payment takes effect: the agent on `gateway-events`.

Our key makes one outcome for each payment, so what is reported of it, by a webhook or a reconciliation, is
taken at its word where it agrees on amount, currency, gateway; nothing has to be asked. A final status never
changes, nothing reported later lowers it, so order and repetition do not matter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import orjson
from msgspec.structs import replace
from prometheus_client import Counter

from faust_exactly_once import Event
from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.known import Known
from streamsocial_billing.domain.outcomes import Called, Verdict, declined, undecided
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.statuses import OPEN, WITHOUT_MONEY
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.payments.bad_input import Reader
from streamsocial_billing.payments.following import Follow
from streamsocial_billing.payments.record_outcome import Change, Row, entry_row, record_again, record_kept
from streamsocial_billing.payments.reported_by_gateway import (
    book_external,
    book_late_success,
    book_refund_failed,
)
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.payments.waiting import awaited_row, with_report
from tables.gateway_events import SeenEvent, seen_key
from tables.payments import Entry, ObservedEntry, PaymentEntry, SmallEntry, is_full, is_observed, is_small

logger = logging.getLogger(__name__)

RANK: Final = {"pending": 0, "declined": 1, "succeeded": 2}
"""What is reported never lowers what was reported before: that something moved outweighs everything else."""
REFUND_RANK: Final = {"pending": 0, "succeeded": 1, "declined": 2}
"""Of one refund: it may fail after it succeeded, never the other way round."""

REPORTED_EFFECTS: Final = Counter(
    "billing_gateway_told",
    "Messages of gateways by what they did; `contradicts` needs a person.",
    ("gateway", "effect"),
    registry=None,
)
"""Registered by the page of metrics. A unit that runs again counts again."""


class Observer:
    """Handles one message of a gateway at a time per user."""

    def __init__(
        self, reader: Reader, writer: UnitWriter, gateways: Mapping[str, Gateway], follow: Follow
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._gateways = gateways
        self._follow = follow

    async def observe(self, event: Event) -> None:
        """One record of `gateway-events`: its effect once, or one dead letter."""
        at_ms = now_ms()
        report = await self._reader.read(event, report_of, at_ms)
        if report is None:
            return
        seen = seen_key(report.user_id, report.gateway, report.event_id)
        if self._writer.reported_before(seen):
            effect = "repeated"
        else:
            row = Row("gateway_events", seen, {"at": at_ms}, None)
            self._put(report.user_id, report.payment_id, at_ms, row)
            effect = self._effect(report, at_ms)
        REPORTED_EFFECTS.labels(report.gateway, effect).inc()

    def _put(self, user_id: str, payment_id: str | None, at_ms: int, *rows: Row) -> None:
        self._writer.write(Change(user_id, payment_id or "", at_ms, rows))

    async def forget(self, user_id: str, name: str, at_ms: int) -> None:
        """A trigger of the sweep: drop a message (`gateway:event_id`) whose retention is over."""
        key = f"{user_id}/{name}"
        seen = self._writer.reported_before(key)
        if seen is not None and _is_forgettable(seen, at_ms):
            self._put(user_id, None, at_ms, Row("gateway_events", key, None))

    def _effect(self, report: GatewayEvent, at_ms: int) -> str:
        payment_id = report.payment_id
        if payment_id is not None and report.kind != "dispute":
            if report.ref == gateway_key_of(report.user_id, report.kind, payment_id):
                return self._ours(report, payment_id, at_ms)
        if report.kind != "charge" and report.charge_id is not None:
            return self._external(report, report.charge_id, at_ms)
        logger.info(
            "%s %s of %s at %s is not ours: ignored",
            report.kind, report.gateway_ref, report.user_id, report.gateway,
        )  # fmt: skip
        return "foreign"

    def _external(self, report: GatewayEvent, charge_id: str, at_ms: int) -> str:
        """A refund or dispute made at the gateway; it waits for the charge's own event, if need be."""
        charge = self._writer.entry(report.user_id, charge_id)
        if is_full(charge) or is_small(charge):
            return book_external(self._writer, report, charge_id, charge, at_ms)
        waiting = with_report(self._writer.awaited(report.user_id, charge_id), report, charge_id)
        if waiting is not None:
            self._put(report.user_id, charge_id, at_ms, awaited_row(report.user_id, charge_id, waiting))
        return "waits"

    def _ours(self, report: GatewayEvent, payment_id: str, at_ms: int) -> str:
        known = self._writer.look_up(report.user_id, payment_id)
        entry = known.entry
        if not (is_full(entry) or is_small(entry)):
            return self._before_its_event(report, payment_id, entry if is_observed(entry) else None, at_ms)
        if entry["action"] != report.kind:
            return _contradicts(report, payment_id, entry)
        report = _by_its_intent(report, entry)
        if is_full(entry) and entry["status"] in OPEN:
            return self._open(report, known, entry, at_ms)
        if _is_late_success(report, entry):
            return book_late_success(self._writer, report, payment_id, entry, at_ms)
        if report.kind == "refund" and entry["gateway_ref"] in (None, report.gateway_ref):
            effect = self._refund_ended(report, payment_id, entry, at_ms)
            if effect is not None:
                return effect
        return _final(report, payment_id, entry)

    def _refund_ended(
        self, report: GatewayEvent, payment_id: str, entry: PaymentEntry | SmallEntry, at_ms: int
    ) -> str | None:
        """What is reported of a refund of ours with an outcome; None: nothing that is special to refunds."""
        match entry["status"], report.status:
            case "declined", "succeeded" if entry["gateway_ref"] is not None and _agrees(report, entry):
                return "known"  # older news: a refund that failed has failed for good
            case "succeeded", "declined":
                # an entry that an earlier release made small does not say its charge; a repair does
                charge_id = entry.get("refund_of") or report.charge_id
                if charge_id is None or not _agrees(report, entry):
                    return _contradicts(report, payment_id, entry)
                return book_refund_failed(
                    writer=self._writer, report=report, refund_id=payment_id, refund=entry,
                    charge_id=charge_id, at_ms=at_ms,
                )  # fmt: skip
        return None

    def _before_its_event(
        self, report: GatewayEvent, payment_id: str, before: ObservedEntry | None, at_ms: int
    ) -> str:
        """Its event adopts what stands here; until then the highest status counts."""
        if before is not None:
            had = before["action"], before["gateway"], before["amount_minor"], before["currency"]
            if had != (report.kind, report.gateway, report.amount_minor, report.currency):
                return _contradicts(report, payment_id, before)
            same_refund = report.kind == "refund" and report.gateway_ref == before["gateway_ref"]
            rank = REFUND_RANK if same_refund else RANK
            waited = before["reason"] == AUTHENTICATION_REQUIRED and before["seen"] == "pending"
            begins = report.status == before["seen"] == "pending" and _wants_customer(report) and not waited
            if rank[report.status] <= rank[before["seen"]] and not begins:
                return "known"
            if waited and report.status == "declined":
                if not report.canceled:
                    return "known"  # its customer may try again
                report = replace(report, reason=AUTHENTICATION_REQUIRED, soft=True)
        gateway = self._gateways.get(report.gateway)
        account = report.account or (gateway.account if gateway is not None else "")
        observed: ObservedEntry = {
            "status": "observed", "seen": report.status, "reason": report.reason, "action": report.kind,
            "gateway": report.gateway, "gateway_account": account, "gateway_ref": report.gateway_ref,
            "amount_minor": report.amount_minor, "currency": report.currency, "soft": report.soft,
            "observed_at": before["observed_at"] if before is not None else at_ms,
        }  # fmt: skip
        if report.intent is not None:
            observed["intent"] = report.intent
        if report.intent_charge is not None:
            observed["intent_charge"] = report.intent_charge
        self._put(report.user_id, payment_id, at_ms, entry_row(report.user_id, payment_id, observed))
        return "observed"

    def _open(self, report: GatewayEvent, known: Known, entry: PaymentEntry, at_ms: int) -> str:
        """What was open is settled, with one final record; what disagrees waits for a person."""
        if not _agrees(report, entry):
            if entry["status"] == "parked":
                return _contradicts(report, known.payment_id, entry)
            amount = f"{report.amount_minor} {report.currency}"
            error = f"{report.gateway} reported {report.gateway_ref} with {amount}"
            found = Verdict("parked", "found_disagrees", ambiguous=True, error=error)
        else:
            ended = _end(report, entry)
            if ended is None:
                return self._not_decided(report, known, entry, at_ms)
            found = ended
        change = record_again(known, entry, Called(found), at_ms)
        self._writer.write(change)
        self._follow(change)
        return "parked" if found.status == "parked" else "settled"

    def _not_decided(self, report: GatewayEvent, known: Known, entry: PaymentEntry, at_ms: int) -> str:
        """Nothing ends. But an intent whose id is known is asked for from now on; it may want a customer."""
        if report.intent is None or "authentication" in entry or entry["status"] == "parked":
            return "noted"
        if report.status == "pending" and _wants_customer(report):
            found = undecided(report.reason, report.intent, report.intent_charge)
            change = record_again(known, entry, Called(found), at_ms)
            self._writer.write(change)
            self._follow(change)
            return "waits"
        if "intent" not in entry:
            noted = entry.copy()
            noted["intent"] = noted["gateway_ref"] = report.intent
            self._writer.write(record_kept(known, noted, at_ms))
        return "noted"


def report_of(value: bytes | None, *, key: bytes | None, now_ms: int) -> GatewayEvent:
    """What a record of `gateway-events` says; raises BadInput."""
    return GatewayEvent.from_bytes(value, key=key)


def is_forgettable(value: bytes, at_ms: int) -> bool:
    """True once no record of this message can be left on `gateway-events`, which keeps 30 days."""
    return _is_forgettable(orjson.loads(value), at_ms)


def _is_forgettable(seen: SeenEvent, at_ms: int) -> bool:
    return at_ms - seen["at"] > DEDUP_RETENTION_MS


def _end(report: GatewayEvent, entry: PaymentEntry) -> Verdict | None:
    """How an open payment ended by what agrees with it; None: it did not.

    An intent that waits for its customer is ended by a success or its cancellation alone: who was declined
    may try again.
    """
    if report.status == "succeeded":
        return Verdict(
            "succeeded", None, report.gateway_ref, intent=report.intent, intent_charge=report.intent_charge
        )  # fmt: skip
    waits = "authentication" in entry
    if report.status != "declined" or (waits and not report.canceled):
        return None
    return declined(
        report.reason, report.gateway_ref, soft=report.soft, canceled=waits, intent=report.intent,
        intent_charge=report.intent_charge,
    )  # fmt: skip


def _wants_customer(report: GatewayEvent) -> bool:
    return report.reason == AUTHENTICATION_REQUIRED


def _by_its_intent(report: GatewayEvent, entry: PaymentEntry | SmallEntry) -> GatewayEvent:
    """The same by the name of the payment's intent, where only its charge is named (by an older release)."""
    intent = entry.get("intent")
    if intent is None or report.kind != "charge" or report.intent is not None or report.gateway_ref == intent:
        return report
    if entry.get("intent_charge", report.gateway_ref) != report.gateway_ref and report.status == "succeeded":
        return report  # perhaps another one: a person sees which
    return replace(report, gateway_ref=intent, intent=intent, intent_charge=report.gateway_ref)


def _is_late_success(report: GatewayEvent, entry: PaymentEntry | SmallEntry) -> bool:
    """Money of an intent that we called declined: somebody confirmed it afterwards."""
    if report.kind != "charge" or report.status != "succeeded" or report.intent is None:
        return False
    same = report.intent in (entry.get("intent"), entry["gateway_ref"])
    return same and entry["status"] in WITHOUT_MONEY and _agrees(report, entry)


def _agrees(report: GatewayEvent, entry: PaymentEntry | SmallEntry) -> bool:
    seen = report.amount_minor, report.currency, report.gateway
    return seen == (entry["amount_minor"], entry["currency"], entry["gateway"])


def _final(report: GatewayEvent, payment_id: str, entry: PaymentEntry | SmallEntry) -> str:
    """A final payment stays as it is; money that moved without the books knowing it is said aloud."""
    if report.status != "succeeded":
        if report.status == "declined" and entry["status"] == "succeeded":
            logger.warning(
                "%s/%s succeeded; a later message says declined (%s, %s): it stays succeeded",
                report.user_id, payment_id, report.reason, report.gateway_ref,
                extra={"payment_id": payment_id},
            )  # fmt: skip
        return "known"
    same = entry["gateway_ref"] in (None, report.gateway_ref)
    paid, charge = entry.get("intent_charge"), report.intent_charge
    if paid is not None and charge is not None and paid != charge:
        same = False  # an intent is paid by one charge
    if entry["status"] == "succeeded" and same and _agrees(report, entry):
        return "known"
    return _contradicts(report, payment_id, entry)


def _contradicts(report: GatewayEvent, payment_id: str, entry: Entry) -> str:
    """Nothing changes; reconciliation finds it too."""
    logger.error(
        "%s/%s is %s (%s, %d %s, %s); %s reports a %s that is %s (%s, %d %s): a person has to look",
        report.user_id, payment_id, entry["status"], entry["action"], entry["amount_minor"],
        entry["currency"], entry["gateway_ref"], report.gateway, report.kind, report.status,
        report.gateway_ref, report.amount_minor, report.currency, extra={"payment_id": payment_id},
    )  # fmt: skip
    return "contradicts"
