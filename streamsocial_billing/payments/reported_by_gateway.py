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
from streamsocial_billing.payments.record_outcome import Change, Row, answered, entry_row, result_of_entry
from streamsocial_billing.payments.unit_writer import Books
from streamsocial_billing.payments.waiting import awaited_row, with_refunded
from tables.payments import ObservedEntry, PaymentEntry, is_full, is_small

logger = logging.getLogger(__name__)

DISPUTE: Final = "dispute"
DISPUTE_WON: Final = "dispute_won"
REFUND_FAILED: Final = "refund_failed"
"""Reasons of external results: money that a dispute took, that came back of it, that a refund which failed
after it had succeeded brought back."""
NO_FINGERPRINT: Final = "external"
"""Instead of a fingerprint: no event is the same as something that had none."""


def external_id(gateway: str, gateway_ref: str, *more: str) -> str:
    """`x1_` + 40 hex of SHA-256: the payment_id of what the gateway made; one for each of its objects.

    Pinned by tests: another id for the same object is a second refund in the books.
    """
    return "x1_" + hashlib.sha256(orjson.dumps([gateway, gateway_ref, *more])).hexdigest()[:40]


def book_external(books: Books, told: GatewayEvent, charge_id: str, charge: Charged, at_ms: int) -> str:
    """Write what was told, once for each object of the gateway, in whatever order it is told.

    Returns what it did: `booked`, `known`, `noted` (nothing moved, or not yet) or `foreign`.
    """
    ref = charge["gateway_ref"]
    if charge["action"] != "charge" or (ref and told.charge_ref and ref != told.charge_ref):
        logger.info("%s/%s: %s is about another charge: ignored", told.user_id, charge_id, told.gateway_ref)
        return "foreign"
    if told.status == "pending":
        return "noted"
    booking = _Booking(books, told, charge_id, charge, at_ms)
    return booking.dispute() if told.kind == "dispute" else booking.refund()


def book_refund_failed(
    books: Books, told: GatewayEvent, refund_id: str, refund: Charged, charge_id: str, at_ms: int
) -> str:
    """A refund that had succeeded did fail: its amount is back in our balance, once for each refund.

    Outcomes never change, so it is a charge of its own, with no card behind it. The charge has room for
    another refund again.
    """
    ref = refund["gateway_ref"] or told.gateway_ref
    payment_id = external_id(told.gateway, ref, "failed")
    if books.entry(told.user_id, payment_id) is not None:
        return "known"
    # what the gateway made knows its part itself: it may have taken what was of another currency
    external = refund["fingerprint"] == NO_FINGERPRINT
    back = refund["refunded_minor" if external else "amount_minor"]
    rows = _given_back(books, told.user_id, charge_id, back)
    changed = refund.copy()
    changed["returned_by"] = payment_id
    rows.append(entry_row(told.user_id, refund_id, changed))
    told = replace(told, amount_minor=refund["amount_minor"], currency=refund["currency"])
    entry = _entry(
        told=told, charge_id=charge_id, of=refund, payment_id=payment_id, action="charge",
        reason=REFUND_FAILED, at_ms=at_ms,
    )  # fmt: skip
    entry["refunded_minor"] = entry["amount_minor"]  # nobody refunds this one
    logger.warning(
        "%s/%s: its refund %s failed after it had succeeded (%s): %d %s are back",
        told.user_id, charge_id, ref, told.reason, told.amount_minor, told.currency,
        extra={"payment_id": charge_id},
    )  # fmt: skip
    _write(books, told.user_id, payment_id, entry, at_ms, *rows)
    return "booked"


@dataclass(frozen=True, slots=True)
class _Booking:
    """One message about what the gateway made, of a charge that has its outcome."""

    books: Books
    told: GatewayEvent
    charge_id: str
    charge: Charged
    at_ms: int

    def refund(self) -> str:
        """A refund that failed has failed for good, so a success that is told later is older news."""
        told, payment_id = self.told, external_id(self.told.gateway, self.told.gateway_ref)
        before = self.books.entry(told.user_id, payment_id)
        if told.status == "succeeded":
            return "known" if before is not None else self._take(payment_id, told.amount_minor)
        if before is None:
            return self._note(payment_id, REFUND_FAILED)
        if "seen" in before or before["status"] != "succeeded":
            return "known"
        return book_refund_failed(
            books=self.books, told=told, refund_id=payment_id, refund=before, charge_id=self.charge_id,
            at_ms=self.at_ms,
        )  # fmt: skip

    def dispute(self) -> str:
        """By what moved in all so far: each message adds what the books do not have yet."""
        if self.told.status == "declined":
            return self._dispute_returned(self.told.amount_minor)
        effect = self._dispute_taken()
        back = self.told.returned_minor
        if not back:
            return effect
        returned = self._dispute_returned(back)
        return "booked" if "booked" in (effect, returned) else effect

    def _dispute_taken(self) -> str:
        told, first = self.told, external_id(self.told.gateway, self.told.gateway_ref)
        before = self.books.entry(told.user_id, first)
        if before is not None and "seen" in before:
            # a list says what is so now, so an inquiry that took money after it was closed is booked
            return self._take(first, told.amount_minor) if told.via == "reconciliation" else "known"
        taken, payment_id = self._so_far(first, "taken")
        more = told.amount_minor - taken
        return self._take(payment_id, more) if more > 0 else "known"

    def _dispute_returned(self, amount_minor: int) -> str:
        told, first = self.told, external_id(self.told.gateway, self.told.gateway_ref)
        before = self.books.entry(told.user_id, first)
        if before is None:
            # it ended before it took anything, or we hear of its end first: then its beginning counts no more
            return self._note(first, DISPUTE_WON)
        if "seen" in before:
            return "known"
        taken, _ = self._so_far(first, "taken")
        won = external_id(told.gateway, told.gateway_ref, "won")
        returned, payment_id = self._so_far(won, "won")
        more = min(amount_minor, taken) - returned
        return self._return(payment_id, more, before["refunded_minor"] > 0) if more > 0 else "known"

    def _note(self, payment_id: str, reason: str) -> str:
        """Nothing moved, but what is told of it later is older news."""
        row = entry_row(self.told.user_id, payment_id, _ended_first(self.told, reason, self.at_ms))
        self.books.write(Change(self.told.user_id, payment_id, self.at_ms, (row,)))
        return "noted"

    def _so_far(self, first: str, word: str) -> tuple[int, str]:
        """What the books have of this side of the dispute, minor units; the id of the next entry of it."""
        total, payment_id = 0, first
        while (entry := self.books.entry(self.told.user_id, payment_id)) is not None and "seen" not in entry:
            total += entry["amount_minor"]
            payment_id = external_id(self.told.gateway, self.told.gateway_ref, word, str(total))
        return total, payment_id

    def _take(self, payment_id: str, amount_minor: int) -> str:
        """Money went back to the user: a refund in the books, which the charge's cap feels."""
        told, charge = replace(self.told, amount_minor=amount_minor), self.charge
        counts = _counts(told, charge)
        room = charge["amount_minor"] - charge["refunded_minor"] if counts else 0
        if room < amount_minor:
            logger.error(
                "%s/%s: %s took back %d %s, the charge (%s, %d %s at %s) had room for %d",
                told.user_id, self.charge_id, told.gateway_ref, amount_minor, told.currency, charge["status"],
                charge["amount_minor"], charge["currency"], charge["gateway"], max(room, 0),
                extra={"payment_id": self.charge_id},
            )  # fmt: skip
        used, rows = amount_minor if counts else 0, list[Row]()
        if used:
            changed = moved(charge, back_minor=used)
            rows.append(entry_row(told.user_id, self.charge_id, changed))
        reason = DISPUTE if told.kind == "dispute" else None
        entry = _entry(
            told=told, charge_id=self.charge_id, of=charge, payment_id=payment_id, action="refund",
            reason=reason, at_ms=self.at_ms,
        )  # fmt: skip
        entry["refunded_minor"] = used
        _write(self.books, told.user_id, payment_id, entry, self.at_ms, *rows)
        return "booked"

    def _return(self, payment_id: str, amount_minor: int, counts: bool) -> str:
        """Money came back to us: outcomes never change, so it is a charge of its own, with no card behind."""
        told = replace(self.told, amount_minor=amount_minor)
        rows = _given_back(self.books, told.user_id, self.charge_id, amount_minor) if counts else []
        entry = _entry(
            told=told, charge_id=self.charge_id, of=self.charge, payment_id=payment_id, action="charge",
            reason=DISPUTE_WON, at_ms=self.at_ms,
        )  # fmt: skip
        entry["refunded_minor"] = amount_minor  # nobody refunds this one
        _write(self.books, told.user_id, payment_id, entry, self.at_ms, *rows)
        return "booked"


def _given_back(books: Books, user_id: str, charge_id: str, amount_minor: int) -> list[Row]:
    """What had gone back is here again: the charge has room for it, and holds its business_ref."""
    charge = books.entry(user_id, charge_id)
    if not (is_full(charge) or is_small(charge)):
        waiting = books.awaited(user_id, charge_id)
        if waiting is None or not waiting["refunded_minor"]:
            return []  # the charge is not waited for any more
        return [awaited_row(user_id, charge_id, with_refunded(waiting, -amount_minor))]
    changed = moved(charge, back_minor=-amount_minor)
    held, other = books.held_again(user_id, charge_id, changed)
    if other is not None:
        logger.error(
            "%s: %s was paid by %s, whose refund came back, and by %s since: a person has to look",
            user_id, changed["business_ref"], charge_id, other, extra={"payment_id": charge_id},
        )  # fmt: skip
    return [entry_row(user_id, charge_id, changed), *held]


def _counts(told: GatewayEvent, charge: Charged) -> bool:
    """True if this can have been taken from what the charge captured."""
    comparable = (told.currency, told.gateway) == (charge["currency"], charge["gateway"])
    return comparable and charge["status"] not in WITHOUT_MONEY


def _entry(
    told: GatewayEvent, charge_id: str, of: Charged, payment_id: str, action: str, reason: str | None,
    at_ms: int,
) -> PaymentEntry:  # fmt: skip
    """A succeeded payment that no event asked for."""
    stand_in = PaymentEvent(
        payment_id=payment_id, user_id=told.user_id, action=action, product=of["product"],
        amount_minor=told.amount_minor, currency=told.currency, payment_method="external",
        gateway=told.gateway, business_ref=None, refund_of=charge_id, requested_at=told.occurred_at,
    )  # fmt: skip
    called = Called(Verdict("succeeded", reason, told.gateway_ref), of["gateway_account"])
    entry = first_entry(Received(stand_in, None, at_ms), called, at_ms, NO_FINGERPRINT)
    entry["charge_ref"] = told.charge_ref
    entry["origin"] = "external"
    return entry


def _ended_first(told: GatewayEvent, reason: str, at_ms: int) -> ObservedEntry:
    return {
        "status": "observed", "seen": "declined", "reason": reason, "action": "refund",
        "gateway": told.gateway, "gateway_account": told.account, "gateway_ref": told.gateway_ref,
        "amount_minor": told.amount_minor, "currency": told.currency, "soft": False, "observed_at": at_ms,
    }  # fmt: skip


def _write(
    books: Books, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int, *rows: Row
) -> None:
    """One external payment with its result, beside what it changes; nothing follows from it."""
    answer = answered(result_of_entry(user_id, payment_id, entry, at_ms), books.state(user_id))
    changed = (*rows, entry_row(user_id, payment_id, entry))
    books.write(Change(user_id, payment_id, at_ms, changed, answer))
