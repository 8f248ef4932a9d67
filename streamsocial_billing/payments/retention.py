"""What is kept of a final payment, for how long."""

from __future__ import annotations

from typing import Final

from streamsocial_billing.domain.decision import DAY_MS, DEDUP_RETENTION_MS
from streamsocial_billing.domain.statuses import FINAL
from streamsocial_billing.payments.record_outcome import Row
from tables.business_refs import BusinessRef, business_key, charges_of, naming
from tables.payments import (
    Entry,
    PaymentEntry,
    SmallEntry,
    is_full,
    is_small,
    payment_key,
)

SMALL_RETENTION_MS: Final = 395 * DAY_MS
"""How long a small entry is kept: 13 months after the 35 days of the full one (payments.md)."""


def swept(
    user_id: str, payment_id: str, entry: Entry | None, named: BusinessRef | None, at_ms: int
) -> tuple[Row, ...]:
    """What is left of an entry whose retention is over: a small one, or nothing; else nothing changes.

    `named` is the row of its business_ref.
    """
    if entry is None or not is_over(entry, at_ms):
        return ()
    key = payment_key(user_id, payment_id)
    if is_full(entry):
        return (Row("payments", key, smaller(entry), entry),)
    gone = Row("payments", key, None)
    if is_small(entry) and entry["business_ref"] is not None and named is not None:
        return (*_let_go(business_key(user_id, entry["business_ref"]), named, payment_id), gone)
    return (gone,)


def _let_go(key: str, named: BusinessRef, payment_id: str) -> tuple[Row, ...]:
    """The row of a business_ref without one of its charges, where it names it."""
    charges = charges_of(named)
    left = [one for one in charges if one != payment_id]
    if left == charges:
        return ()
    return (Row("business_refs", key, naming(*left) if left else None, named),)


def is_over(entry: Entry, at_ms: int) -> bool:
    """True if what is kept of this payment is more than its age asks for; never while a refund is open."""
    if "seen" in entry:
        return at_ms - entry["observed_at"] > DEDUP_RETENTION_MS + SMALL_RETENTION_MS
    if entry["status"] not in FINAL or entry["reserved_minor"] > 0:
        return False
    kept_ms = DEDUP_RETENTION_MS + (SMALL_RETENTION_MS if is_small(entry) else 0)
    return at_ms - entry["processed_at"] > kept_ms


def smaller(entry: PaymentEntry) -> SmallEntry:
    """What replays, late refunds and a late failure of a refund need."""
    small: SmallEntry = {
        "small": True,
        "fingerprint": entry["fingerprint"],
        "fingerprint_version": entry["fingerprint_version"],
        "action": entry["action"],
        "product": entry["product"],
        "status": entry["status"],
        "reason": entry["reason"],
        "gateway": entry["gateway"],
        "gateway_account": entry["gateway_account"],
        "gateway_ref": entry["gateway_ref"],
        "amount_minor": entry["amount_minor"],
        "currency": entry["currency"],
        "refunded_minor": entry["refunded_minor"],
        "reserved_minor": entry["reserved_minor"],
        "business_ref": entry["business_ref"],
        "conflicts_with": entry["conflicts_with"],
        "attempts": entry["attempts"],
        "processed_at": entry["processed_at"],
    }
    if entry["refund_of"] is not None:
        small["refund_of"] = entry["refund_of"]
    if "returned_by" in entry:
        small["returned_by"] = entry["returned_by"]
    if "intent" in entry:
        small["intent"] = entry["intent"]
    if "intent_charge" in entry:
        small["intent_charge"] = entry["intent_charge"]
    return small
