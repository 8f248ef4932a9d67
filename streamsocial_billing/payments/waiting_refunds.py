"""Refunds that wait for their charge, or for room at it: what becomes of them when it is looked at again.

Pure: nothing is read or written here. Nobody is called here either, so this fits into the charge's own unit:
there is no moment at which a charge has its end while its refunds still wait for it. And a released refund is
committed before its first call, so that the window of its gateway key has a beginning.
"""

from __future__ import annotations

from typing import Final

from streamsocial_billing.domain.known import Known
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.refund_rules import (
    CHARGE_UNKNOWN,
    EXCEEDS_CHARGE,
    UNKNOWN_CHARGE,
    Allowed,
    Charged,
    Held,
    Refused,
    judge,
    moved,
    wish_of,
)
from streamsocial_billing.payments.record_outcome import Change, Row, changed_row, record_again, record_kept
from streamsocial_billing.payments.waiting import awaited_row, with_refund, without_refund
from tables.awaited_charges import AwaitedCharge
from tables.payments import Entry, PaymentEntry

CHARGE_MAY_COME_MS: Final = 600_000
"""How long a refund may have overtaken its charge (payments.md, "Refunds")."""
LOOK_AGAIN_MS: Final = 3_600_000
"""A refund that waits is released by its charge; only one that found no room in the list needs this look."""
NO_REF = "a refund names its charge"


def charge_of(refund_of: str | None) -> str:
    """The payment_id of a refund's charge; raises LookupError for what names none."""
    if refund_of is None:
        raise LookupError(NO_REF)
    return refund_of


def look_again(
    known: Known, entry: PaymentEntry, charge: Entry | None, waiting: AwaitedCharge | None, at_ms: int
) -> Change:
    """Refuse it, make it an open refund that is due, or let it wait on.

    `entry` is that of the refund, `waiting` what waits for its charge.
    """
    held_ms, begun = at_ms - (entry["held_since"] or at_ms), entry["gateway_ref"] is not None
    match judge(wish_of(entry), charge):
        case Allowed() as allowed:
            return _release(known, entry, allowed, waiting, at_ms)
        case Held(reason) if reason == UNKNOWN_CHARGE and not begun and held_ms >= CHARGE_MAY_COME_MS:
            return record_again(known, entry, Called(Verdict("rejected", reason)), at_ms)
        case Held(reason):
            held = held_entry(entry, CHARGE_UNKNOWN if begun else reason, at_ms)
            return record_kept(known, held, at_ms, *listed(known, held, waiting))
        case Refused(reason) if begun:
            error = f"the gateway has it as {entry['gateway_ref']}, though it is {reason}"
            found = Verdict("parked", "found_disagrees", ambiguous=True, error=error)
            return record_again(known, entry, Called(found), at_ms)
        case Refused(_, full) if full is not None and entry["ever_ambiguous"]:
            asked = asked_entry(entry, full, at_ms)
            return record_kept(known, asked, at_ms, *_not_listed(known, asked, waiting))
        case Refused(reason):
            return record_again(known, entry, Called(Verdict("rejected", reason)), at_ms)


def _release(
    known: Known, entry: PaymentEntry, allowed: Allowed, waiting: AwaitedCharge | None, at_ms: int
) -> Change:
    amount = entry["amount_minor"]
    released = _due_entry(entry, allowed.charge, at_ms)
    released["reason"] = "released"
    released["reserved_minor"] = amount
    if not entry["ever_ambiguous"]:  # else a delivery that was lost may have called since it was appended
        released["window_from"] = at_ms
    charge_id, charge = charge_of(entry["refund_of"]), moved(allowed.charge, held_minor=amount)
    row = changed_row(known.user_id, charge_id, charge)
    return record_kept(known, released, at_ms, row, *_not_listed(known, released, waiting))


def held_entry(entry: PaymentEntry, reason: str, at_ms: int) -> PaymentEntry:
    """It waits for its charge."""
    held = entry.copy()
    since = held["held_since"] = entry["held_since"] or at_ms
    held["reason"] = reason
    due_at = since + CHARGE_MAY_COME_MS if reason == UNKNOWN_CHARGE else at_ms + LOOK_AGAIN_MS
    held["due_at"] = held["next_try_at"] = due_at
    return held


def asked_entry(entry: PaymentEntry, charge: Charged, at_ms: int) -> PaymentEntry:
    """There is no room for it, but a delivery that was lost may have been allowed it, may have called.

    Since then the room may have gone to a refund made at the gateway. It is asked for, never called.
    """
    asked = _due_entry(entry, charge, at_ms)
    asked["reason"] = EXCEEDS_CHARGE
    asked["ask_only"] = True
    return asked


def _due_entry(entry: PaymentEntry, charge: Charged, at_ms: int) -> PaymentEntry:
    """From here on it is an open payment like any other."""
    due = entry.copy()
    due["held_since"] = None
    due["charge_ref"] = charge["gateway_ref"]
    due["gateway_account"] = charge["gateway_account"]
    due["due_at"] = due["next_try_at"] = at_ms
    return due


def listed(known: Known, entry: PaymentEntry, waiting: AwaitedCharge | None) -> tuple[Row, ...]:
    """The row of its charge with it, where that is a change."""
    changed = with_refund(waiting, known.payment_id)
    return () if changed is None else (awaited_row(known.user_id, charge_of(entry["refund_of"]), changed),)


def _not_listed(known: Known, entry: PaymentEntry, waiting: AwaitedCharge | None) -> tuple[Row, ...]:
    """The row of its charge without it, where that is a change."""
    changed = without_refund(waiting, known.payment_id)
    return () if changed is None else (awaited_row(known.user_id, charge_of(entry["refund_of"]), changed),)
