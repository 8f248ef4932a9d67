"""What is shown of a payment, of a user: the same fields in every answer over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from streamsocial_billing.domain.events import PaymentEvent

PAYMENT_FIELDS: Final = (
    "payment_id", "user_id", "action", "product", "status", "reason", "replayed", "amount_minor", "currency",
    "gateway", "gateway_ref", "attempt", "requested_at", "processed_at", "source", "business_ref",
    "refund_of", "conflicts_with", "origin",
)  # fmt: skip
"""In answers to POST, in `GET /payments/..`, in a ChargeResult: the same names, the same meaning."""
NOT_SHOWN: Final = frozenset({"fingerprint"})
FINGERPRINTED: Final = (
    "action", "amount_minor", "business_ref", "currency", "gateway", "payment_method", "product", "refund_of",
)  # fmt: skip
"""What a repeat must have in common with the first (`events.fingerprint`); its user_id is in the key."""


def stored_payment(user_id: str, payment_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `payments`: PAYMENT_FIELDS, null where an entry of its kind has none, then all the rest.

    `replayed` is false: this is the outcome itself, not the answer to a repeat.
    """
    defaults = {} if "small" in entry or "seen" in entry else {"origin": "event"}
    known = {
        **defaults, **entry, "payment_id": payment_id, "user_id": user_id, "replayed": False,
        "attempt": entry.get("attempts", 0),
    }  # fmt: skip
    rest = {name: value for name, value in entry.items() if name not in NOT_SHOWN}
    return {name: known.get(name) for name in PAYMENT_FIELDS} | rest


def answered_payment(
    payment: PaymentEvent, status: str, entry: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """PAYMENT_FIELDS for who sent the payment: of what is stored, else of the event itself."""
    sent = {
        "action": payment.action, "product": payment.product, "amount_minor": payment.amount_minor,
        "currency": payment.currency, "gateway": payment.gateway, "business_ref": payment.business_ref,
        "refund_of": payment.refund_of, "origin": "event",
    }  # fmt: skip
    if entry is None:
        shown = sent | {
            "payment_id": payment.payment_id, "user_id": payment.user_id, "attempt": 0,
            "requested_at": payment.requested_at,
        }  # fmt: skip
    else:  # equal by the fingerprint; a small entry has not kept all of it
        known = sent | {name: value for name, value in entry.items() if value is not None}
        shown = stored_payment(payment.user_id, payment.payment_id, known)
    shown |= {"status": status, "replayed": entry is not None}
    return {name: shown.get(name) for name in PAYMENT_FIELDS}


def differing(payment: PaymentEvent, first: Mapping[str, Any]) -> list[str]:
    """The fields in which a payment is not the first under its key; empty if those are no longer kept."""
    return [name for name in FINGERPRINTED if name in first and first[name] != getattr(payment, name)]


def not_comparable(payment: PaymentEvent, first: Mapping[str, Any]) -> list[str]:
    """The fields that an entry has not kept, one of which may differ."""
    names = [name for name in FINGERPRINTED if name not in first]
    return [name for name in names if name != "refund_of" or payment.action == "refund"]


def charge_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `charges`, with its counts by action."""
    return {**state, "counts_by_action": counts_by_action(state)}


def counts_by_action(state: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """`counts` as `charge`, `refund`, and `not_recorded`: counted before the row told the two apart."""
    refunds = Counter(state.get("refund_counts", {}))
    older = Counter(state.get("older_counts", {}) if "refund_counts" in state else state["counts"])
    charges = Counter(state["counts"]) - refunds - older
    return {"charge": dict(charges), "refund": dict(refunds), "not_recorded": dict(older)}
