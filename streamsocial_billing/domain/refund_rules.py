"""What a charge allows its refunds.

Pure: no await, no I/O, no clock; nothing that comes in is changed. The rules are payments.md, "Refunds".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.statuses import OPEN
from tables.payments import Entry, PaymentEntry, SmallEntry, is_full, is_small

UNKNOWN_CHARGE: Final = "unknown_charge"
"""No such charge: as long as it may still come the refund waits, then this is why it is rejected."""
CHARGE_UNKNOWN: Final = "charge_unknown"
NOTHING_TO_REFUND: Final = "nothing_to_refund"
EXCEEDS_CHARGE: Final = "refund_exceeds_charge"
MISMATCH: Final = "refund_mismatch"
WITHOUT_REFERENCE: Final = "charge_without_reference"

Charged = PaymentEntry | SmallEntry
"""The entry of a charge whose event was handled."""


class Wish(NamedTuple):
    """What a refund asks for."""

    amount_minor: int
    currency: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """Reserve the amount at this charge, then call with the gateway's id of the charge."""

    charge: Charged
    charge_ref: str


@dataclass(frozen=True, slots=True)
class Held:
    """The charge has no outcome yet: wait, as `unknown` with this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Final: `rejected` with this reason; `charge` is the one that has no room left, where that is why."""

    reason: str
    charge: Charged | None = None


Ruling = Allowed | Held | Refused


def wish_of(refund: PaymentEvent | PaymentEntry) -> Wish:
    """What an event, or the entry that it left, asks for."""
    if isinstance(refund, PaymentEvent):
        return Wish(refund.amount_minor, refund.currency, refund.gateway)
    return Wish(refund["amount_minor"], refund["currency"], refund["gateway"])


def judge(wish: Wish, charge: Entry | None) -> Ruling:
    """Decide by the charge's entry; what never changes is asked first, so that waiting changes no answer."""
    if charge is None:
        return Held(UNKNOWN_CHARGE)
    if charge["action"] != "charge":
        return Refused(UNKNOWN_CHARGE)
    if (charge["currency"], charge["gateway"]) != (wish.currency, wish.gateway):
        return Refused(MISMATCH)
    if not (is_full(charge) or is_small(charge)) or charge["status"] in OPEN:
        return Held(CHARGE_UNKNOWN)
    if charge["status"] != "succeeded":
        return Refused(NOTHING_TO_REFUND)
    if wish.amount_minor > left(charge):
        return Refused(EXCEEDS_CHARGE, charge)
    if charge["gateway_ref"] is None:
        return Refused(WITHOUT_REFERENCE)
    return Allowed(charge, charge["gateway_ref"])


def left(charge: Charged) -> int:
    """What may still be refunded: captured, less what went back, less what open refunds hold; minor units."""
    return max(charge["amount_minor"] - charge["refunded_minor"] - charge["reserved_minor"], 0)


def moved(charge: Charged, *, held_minor: int = 0, back_minor: int = 0) -> Charged:
    """The charge after open refunds hold so much more of it, so much more of it went back; less: negative.

    All that went back counts, were it more than was captured: a dispute and a refund may both take the same
    money, and when the dispute is won only its own part comes back.
    """
    changed = charge.copy()
    changed["reserved_minor"] = charge["reserved_minor"] + held_minor
    changed["refunded_minor"] = charge["refunded_minor"] + back_minor
    return changed
