"""Books what the gateway did by itself: refunds and disputes made there, refunds that failed afterwards."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Final

import orjson
from msgspec.structs import replace

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import first_entry
from streamsocial_billing.domain.refund_rules import Charged, moved
from streamsocial_billing.domain.statuses import WITHOUT_MONEY
from streamsocial_billing.payments.charge_balance import came_back
from streamsocial_billing.payments.record_outcome import Change, Row, answered, entry_row, result_of_entry
from streamsocial_billing.payments.unit_writer import UnitWriter
from tables.payments import ObservedEntry, PaymentEntry

logger = logging.getLogger(__name__)

DISPUTE: Final = "dispute"
DISPUTE_WON: Final = "dispute_won"
REFUND_FAILED: Final = "refund_failed"
LATE_SUCCESS: Final = "succeeded_after_decline"
"""Reasons of external results: money that a dispute took, that came back of it, that a refund which failed
after it had succeeded brought back; money of an intent that we had called declined."""
NO_FINGERPRINT: Final = "external"
"""Instead of a fingerprint: no event is the same as something that had none."""


def external_id(gateway: str, gateway_ref: str, *more: str) -> str:
    """`x1_` + 40 hex of SHA-256: the payment_id of what the gateway made; one for each of its objects.

    Pinned by tests: another id for the same object is a second refund in the books.
    """
    return "x1_" + hashlib.sha256(orjson.dumps([gateway, gateway_ref, *more])).hexdigest()[:40]


def book_external(
    writer: UnitWriter, report: GatewayEvent, charge_id: str, charge: Charged, at_ms: int
) -> str:
    """Write what was reported, once for each object of the gateway, in whatever order it is reported.

    Returns what it did: `booked`, `known`, `noted` (nothing moved, or not yet) or `foreign`.
    """
    if charge["action"] != "charge" or not _may_be_of(report.charge_ref, charge):
        logger.info(
            "%s/%s: %s is about another charge: ignored", report.user_id, charge_id, report.gateway_ref
        )
        return "foreign"
    if report.status == "pending":
        return "noted"
    booking = _Booking(writer, report, charge_id, charge, at_ms)
    return booking.dispute() if report.kind == "dispute" else booking.refund()


def _may_be_of(charge_ref: str | None, charge: Charged) -> bool:
    """True unless another charge is named; of an intent its charge's id may be named, and not be known."""
    ref, own = charge["gateway_ref"], charge.get("intent_charge")
    if not ref or not charge_ref or charge_ref in (ref, own):
        return True
    return "intent" in charge and own is None


def book_refund_failed(
    writer: UnitWriter, report: GatewayEvent, refund_id: str, refund: Charged, charge_id: str, at_ms: int
) -> str:
    """A refund that had succeeded did fail: its amount is back in our balance, once for each refund.

    Outcomes never change, so it is a charge of its own, with no card behind it. The charge has room for
    another refund again.
    """
    ref = refund["gateway_ref"] or report.gateway_ref
    payment_id = external_id(report.gateway, ref, "failed")
    if writer.entry(report.user_id, payment_id) is not None:
        return "known"
    # what the gateway made knows its part itself: it may have taken what was of another currency
    external = refund["fingerprint"] == NO_FINGERPRINT
    back = refund["refunded_minor" if external else "amount_minor"]
    rows = came_back(writer, report.user_id, charge_id, back)
    changed = refund.copy()
    changed["returned_by"] = payment_id
    rows.append(entry_row(report.user_id, refund_id, changed))
    report = replace(report, amount_minor=refund["amount_minor"], currency=refund["currency"])
    entry = _entry(
        report=report, charge_id=charge_id, of=refund, payment_id=payment_id, action="charge",
        reason=REFUND_FAILED, at_ms=at_ms,
    )  # fmt: skip
    entry["refunded_minor"] = entry["amount_minor"]  # nobody refunds this one
    logger.warning(
        "%s/%s: its refund %s failed after it had succeeded (%s): %d %s are back",
        report.user_id, charge_id, ref, report.reason, report.amount_minor, report.currency,
        extra={"payment_id": charge_id},
    )  # fmt: skip
    _write(writer, report.user_id, payment_id, entry, at_ms, *rows)
    return "booked"


def book_late_success(
    writer: UnitWriter, report: GatewayEvent, payment_id: str, of: Charged, at_ms: int
) -> str:
    """An intent that we called declined was confirmed afterwards: a charge of its own, once for each intent.

    Outcomes never change. It can be refunded as any charge, by its own payment_id, which reconciliation
    proposes; it holds no business_ref, as that may have been paid by another one since.
    """
    intent = report.intent or report.gateway_ref
    late_id = external_id(report.gateway, intent, "succeeded")
    if writer.entry(report.user_id, late_id) is not None:
        return "known"
    entry = _entry(
        report=report, charge_id=payment_id, of=of, payment_id=late_id, action="charge", reason=LATE_SUCCESS,
        at_ms=at_ms,
    )  # fmt: skip
    entry["intent"] = intent
    if report.intent_charge is not None:
        entry["intent_charge"] = report.intent_charge
    logger.error(
        "%s/%s is %s, but %s was confirmed afterwards: %d %s are booked as %s; refund that",
        report.user_id, payment_id, of["status"], intent, report.amount_minor, report.currency, late_id,
        extra={"payment_id": payment_id},
    )  # fmt: skip
    _write(writer, report.user_id, late_id, entry, at_ms)
    return "booked"


@dataclass(frozen=True, slots=True)
class _Booking:
    """One message about what the gateway made, of a charge that has its outcome."""

    writer: UnitWriter
    report: GatewayEvent
    charge_id: str
    charge: Charged
    at_ms: int

    def refund(self) -> str:
        """A refund that failed has failed for good, so a success that is reported later is older news."""
        report, payment_id = self.report, external_id(self.report.gateway, self.report.gateway_ref)
        before = self.writer.entry(report.user_id, payment_id)
        if report.status == "succeeded":
            return "known" if before is not None else self._take(payment_id, report.amount_minor)
        if before is None:
            return self._note(payment_id, REFUND_FAILED)
        if "seen" in before or before["status"] != "succeeded":
            return "known"
        return book_refund_failed(
            writer=self.writer, report=report, refund_id=payment_id, refund=before, charge_id=self.charge_id,
            at_ms=self.at_ms,
        )  # fmt: skip

    def dispute(self) -> str:
        """By what moved in all so far: each message adds what the books do not have yet."""
        if self.report.status == "declined":
            return self._dispute_returned(self.report.amount_minor)
        effect = self._dispute_taken()
        back = self.report.returned_minor
        if not back:
            return effect
        returned = self._dispute_returned(back)
        return "booked" if "booked" in (effect, returned) else effect

    def _dispute_taken(self) -> str:
        report, first = self.report, external_id(self.report.gateway, self.report.gateway_ref)
        before = self.writer.entry(report.user_id, first)
        if before is not None and "seen" in before:
            # a list says what is so now, so an inquiry that took money after it was closed is booked
            return self._take(first, report.amount_minor) if report.via == "reconciliation" else "known"
        taken, payment_id = self._so_far(first, "taken")
        more = report.amount_minor - taken
        return self._take(payment_id, more) if more > 0 else "known"

    def _dispute_returned(self, amount_minor: int) -> str:
        report, first = self.report, external_id(self.report.gateway, self.report.gateway_ref)
        before = self.writer.entry(report.user_id, first)
        if before is None:
            # it ended before it took anything, or we hear of its end first: then its beginning counts no more
            return self._note(first, DISPUTE_WON)
        if "seen" in before:
            return "known"
        taken, _ = self._so_far(first, "taken")
        won = external_id(report.gateway, report.gateway_ref, "won")
        returned, payment_id = self._so_far(won, "won")
        more = min(amount_minor, taken) - returned
        return self._return(payment_id, more, before["refunded_minor"] > 0) if more > 0 else "known"

    def _note(self, payment_id: str, reason: str) -> str:
        """Nothing moved, but what is reported of it later is older news."""
        row = entry_row(self.report.user_id, payment_id, _ended_first(self.report, reason, self.at_ms))
        self.writer.write(Change(self.report.user_id, payment_id, self.at_ms, (row,)))
        return "noted"

    def _so_far(self, first: str, word: str) -> tuple[int, str]:
        """What the books have of this side of the dispute, minor units; the id of the next entry of it."""
        total, payment_id, user_id = 0, first, self.report.user_id
        while (entry := self.writer.entry(user_id, payment_id)) is not None and "seen" not in entry:
            total += entry["amount_minor"]
            payment_id = external_id(self.report.gateway, self.report.gateway_ref, word, str(total))
        return total, payment_id

    def _take(self, payment_id: str, amount_minor: int) -> str:
        """Money went back to the user: a refund in the books, which the charge's cap feels."""
        report, charge = replace(self.report, amount_minor=amount_minor), self.charge
        counts = _counts(report, charge)
        room = charge["amount_minor"] - charge["refunded_minor"] if counts else 0
        if room < amount_minor:
            logger.error(
                "%s/%s: %s took back %d %s, the charge (%s, %d %s at %s) had room for %d",
                report.user_id, self.charge_id, report.gateway_ref, amount_minor, report.currency,
                charge["status"], charge["amount_minor"], charge["currency"], charge["gateway"], max(room, 0),
                extra={"payment_id": self.charge_id},
            )  # fmt: skip
        used, rows = amount_minor if counts else 0, list[Row]()
        if used:
            changed = moved(charge, back_minor=used)
            rows.append(entry_row(report.user_id, self.charge_id, changed))
        reason = DISPUTE if report.kind == "dispute" else None
        entry = _entry(
            report=report, charge_id=self.charge_id, of=charge, payment_id=payment_id, action="refund",
            reason=reason, at_ms=self.at_ms,
        )  # fmt: skip
        entry["refunded_minor"] = used
        _write(self.writer, report.user_id, payment_id, entry, self.at_ms, *rows)
        return "booked"

    def _return(self, payment_id: str, amount_minor: int, counts: bool) -> str:
        """Money came back to us: outcomes never change, so it is a charge of its own, with no card behind."""
        report = replace(self.report, amount_minor=amount_minor)
        rows = came_back(self.writer, report.user_id, self.charge_id, amount_minor) if counts else []
        entry = _entry(
            report=report, charge_id=self.charge_id, of=self.charge, payment_id=payment_id, action="charge",
            reason=DISPUTE_WON, at_ms=self.at_ms,
        )  # fmt: skip
        entry["refunded_minor"] = amount_minor  # nobody refunds this one
        _write(self.writer, report.user_id, payment_id, entry, self.at_ms, *rows)
        return "booked"


def _counts(report: GatewayEvent, charge: Charged) -> bool:
    """True if this can have been taken from what the charge captured."""
    comparable = (report.currency, report.gateway) == (charge["currency"], charge["gateway"])
    return comparable and charge["status"] not in WITHOUT_MONEY


def _entry(
    report: GatewayEvent, charge_id: str, of: Charged, payment_id: str, action: str, reason: str | None,
    at_ms: int,
) -> PaymentEntry:  # fmt: skip
    """A succeeded payment that no event asked for."""
    stand_in = PaymentEvent(
        payment_id=payment_id, user_id=report.user_id, action=action, product=of["product"],
        amount_minor=report.amount_minor, currency=report.currency, payment_method="external",
        gateway=report.gateway, business_ref=None, refund_of=charge_id, requested_at=report.occurred_at,
    )  # fmt: skip
    called = Called(Verdict("succeeded", reason, report.gateway_ref), of["gateway_account"])
    entry = first_entry(Received(stand_in, None, at_ms), called, at_ms, NO_FINGERPRINT)
    entry["charge_ref"] = report.charge_ref
    entry["origin"] = "external"
    return entry


def _ended_first(report: GatewayEvent, reason: str, at_ms: int) -> ObservedEntry:
    return {
        "status": "observed", "seen": "declined", "reason": reason, "action": "refund",
        "gateway": report.gateway, "gateway_account": report.account, "gateway_ref": report.gateway_ref,
        "amount_minor": report.amount_minor, "currency": report.currency, "soft": False, "observed_at": at_ms,
    }  # fmt: skip


def _write(
    writer: UnitWriter, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int, *rows: Row
) -> None:
    """One external payment with its result, beside what it changes; nothing follows from it."""
    answer = answered(result_of_entry(user_id, payment_id, entry, at_ms), writer.state(user_id))
    changed = (*rows, entry_row(user_id, payment_id, entry))
    writer.write(Change(user_id, payment_id, at_ms, changed, answer))
