"""Books refunds, disputes that were made at the gateway, not by us."""

from __future__ import annotations

import hashlib
import logging
from typing import Final

import orjson

from streamsocial_billing.books import Books
from streamsocial_billing.decision import after_outcome
from streamsocial_billing.events import PaymentEvent
from streamsocial_billing.gateway_events import GatewayEvent
from streamsocial_billing.outcomes import Verdict
from streamsocial_billing.refund_rules import Charged, after_end
from tables.payments import ObservedEntry, PaymentEntry

logger = logging.getLogger(__name__)

DISPUTE: Final = "dispute"
DISPUTE_WON: Final = "dispute_won"
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
    payment_id = external_id(told.gateway, told.gateway_ref)
    before = books.entry(told.user_id, payment_id)
    if told.status == "succeeded":
        if before is not None:
            return "known"
        _book_taken(books, told, charge_id, charge, payment_id, at_ms)
        return "booked"
    if told.kind != "dispute" or told.status == "pending":
        return "noted"  # a refund that failed or is not decided moved nothing: there is nothing to book
    if before is None:
        # it ended before it took anything, or we hear of its end first: then its beginning counts no more
        books.put(told.user_id, payment_id, _ended_first(told, at_ms))
        return "noted"
    if "seen" in before or before["status"] != "succeeded":
        return "known"
    return _book_won(books, told, charge_id, charge, payment_id, at_ms)


def _book_taken(
    books: Books, told: GatewayEvent, charge_id: str, charge: Charged, payment_id: str, at_ms: int
) -> None:
    """Money went back to the user: a refund in the books, which the charge's cap feels."""
    counts = _counts(told, charge)
    room = charge["amount_minor"] - charge["refunded_minor"] if counts else 0
    if room < told.amount_minor:
        logger.error(
            "%s/%s: %s took back %d %s, the charge (%s, %d %s at %s) had room for %d",
            told.user_id, charge_id, told.gateway_ref, told.amount_minor, told.currency, charge["status"],
            charge["amount_minor"], charge["currency"], charge["gateway"], max(room, 0),
        )  # fmt: skip
    used = told.amount_minor if counts else 0
    if used:
        books.put(told.user_id, charge_id, after_end(charge, freed_minor=0, refunded_minor=used))
    reason = DISPUTE if told.kind == "dispute" else None
    entry = _entry(told, charge_id, charge, payment_id, "refund", reason, at_ms)
    entry["refunded_minor"] = used
    _write(books, told.user_id, payment_id, entry, at_ms)


def _book_won(
    books: Books, told: GatewayEvent, charge_id: str, charge: Charged, dispute_id: str, at_ms: int
) -> str:
    """Money came back to us: outcomes never change, so it is a charge of its own, with no card behind it."""
    payment_id = external_id(told.gateway, told.gateway_ref, "won")
    dispute = books.entry(told.user_id, dispute_id)
    if dispute is None or "seen" in dispute or books.entry(told.user_id, payment_id) is not None:
        return "known"
    used = dispute["refunded_minor"]
    if used:
        books.put(told.user_id, charge_id, after_end(charge, freed_minor=0, refunded_minor=-used))
    entry = _entry(told, charge_id, charge, payment_id, "charge", DISPUTE_WON, at_ms)
    entry["amount_minor"] = entry["refunded_minor"] = dispute["amount_minor"]  # nobody refunds this one
    _write(books, told.user_id, payment_id, entry, at_ms)
    return "booked"


def _counts(told: GatewayEvent, charge: Charged) -> bool:
    """True if this can have been taken from what the charge captured."""
    comparable = (told.currency, told.gateway) == (charge["currency"], charge["gateway"])
    return comparable and charge["status"] not in ("declined", "failed", "rejected")


def _entry(
    told: GatewayEvent, charge_id: str, charge: Charged, payment_id: str, action: str, reason: str | None,
    at_ms: int,
) -> PaymentEntry:  # fmt: skip
    """A succeeded payment that no event asked for."""
    stand_in = PaymentEvent(
        payment_id=payment_id, user_id=told.user_id, action=action, product=charge["product"],
        amount_minor=told.amount_minor, currency=told.currency, payment_method="external",
        gateway=told.gateway, business_ref=None, refund_of=charge_id, requested_at=told.occurred_at,
    )  # fmt: skip
    entry = after_outcome(
        stand_in, status="succeeded", reason=reason, gateway_account=charge["gateway_account"],
        gateway_ref=told.gateway_ref, attempts=0, ever_ambiguous=False, last_error=None, source=None,
        appended_ms=at_ms, now_ms=at_ms, charge_ref=told.charge_ref, known_fingerprint=NO_FINGERPRINT,
    )  # fmt: skip
    entry["origin"] = "external"
    return entry


def _ended_first(told: GatewayEvent, at_ms: int) -> ObservedEntry:
    return {
        "status": "observed", "seen": "declined", "reason": DISPUTE_WON, "action": "refund",
        "gateway": told.gateway, "gateway_account": told.account, "gateway_ref": told.gateway_ref,
        "amount_minor": told.amount_minor, "currency": told.currency, "soft": False, "observed_at": at_ms,
    }  # fmt: skip


def _write(books: Books, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int) -> None:
    books.put(user_id, payment_id, entry)
    books.write(
        entry, user_id, payment_id, Verdict("succeeded", entry["reason"], entry["gateway_ref"]),
        replayed=False, resolves=False, attempt=0, gateway_ms=None, source=None, at_ms=at_ms,
    )  # fmt: skip
