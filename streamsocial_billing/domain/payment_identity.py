"""What makes two events one payment: for us its fingerprint, for a gateway its key."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import orjson
from msgspec import Struct

from streamsocial_billing.domain.events import ENCODER, PaymentEvent

FINGERPRINT_VERSION: Final = 1
KEY_VERSION: Final = 1


def fingerprint(event: PaymentEvent, version: int = FINGERPRINT_VERSION) -> str:
    """Hex SHA-256 of what a re-sent event must have in common with the first.

    The rule: payments.md, "Decision before the gateway". Pinned by tests: stored entries
    hold it. A version that this code does not know raises ValueError: a worker that was set back stops, and
    does not take each known payment for another one.
    """
    if version != FINGERPRINT_VERSION:
        raise ValueError(f"fingerprint version {version} was written by a newer release, this one knows 1")
    canonical = ENCODER.encode(
        _Canonical(
            event.action, event.amount_minor, event.business_ref, event.currency, event.gateway,
            event.payment_method, event.product, event.refund_of, event.user_id,
        )
    )  # fmt: skip
    return sha256(b"fingerprint:1:" + canonical).hexdigest()


class _Canonical(Struct, gc=False):
    """The fields of a fingerprint, sorted by their names as version 1 wants them: JSON without a sort."""

    action: str
    amount_minor: int
    business_ref: str | None
    currency: str
    gateway: str
    payment_method: str
    product: str
    refund_of: str | None
    user_id: str


def gateway_key(event: PaymentEvent) -> str:
    """The idempotency key of the event's call: see gateway_key_of."""
    return gateway_key_of(event.user_id, event.action, event.payment_id)


def gateway_key_of(user_id: str, action: str, payment_id: str) -> str:
    """`ss1_` + 56 hex of SHA-256: a pure function of what names a payment, joined as a JSON list.

    Pinned by tests: another key for the same payment is a second charge.
    """
    joined = orjson.dumps((KEY_VERSION, user_id, action, payment_id))
    return "ss1_" + sha256(joined).hexdigest()[:56]
