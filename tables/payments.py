"""The dedup record of each payment."""

from __future__ import annotations

from typing import Any, TypedDict

import faust


class Source(TypedDict):
    """Where the first event of a payment stands on `payments`."""

    topic: str
    partition: int
    offset: int


class PaymentEntry(TypedDict):
    """What is known of one payment: the value under `user_id/payment_id`.

    Written by the billing agent only, in the unit of the event (first outcome; a replay of an open one moves
    `next_try_at`) or of the nudge that tries it again. Kept at least 35 days after it became final; its
    changelog is compacted, never deleted by time. Times are ms since the epoch, amounts minor units.
    """

    fingerprint: str
    """Hex SHA-256 of what a re-sent event must have in common with the first."""
    fingerprint_version: int
    """Format of `fingerprint`; `events.FINGERPRINT_VERSION` when the entry was made."""
    key_version: int
    """Format of the gateway's idempotency key; `events.KEY_VERSION` when the entry was made."""
    action: str
    """`charge` or `refund`."""
    product: str
    """`subscription`, `upgrade` or `gift`."""
    status: str
    """Final: `succeeded`, `declined`, `failed`, `rejected`. Open: `unknown`, `parked`."""
    reason: str | None
    """Code that explains `status`; None for succeeded."""
    gateway: str
    """The gateway that the event names: calls for this payment go nowhere else."""
    gateway_account: str
    """Account at the gateway under which the first call was made; idempotency keys hold per account."""
    gateway_ref: str | None
    """The gateway's own id of the charge, once known."""
    amount_minor: int
    """The amount of the event."""
    currency: str
    """ISO 4217, upper-case."""
    refunded_minor: int
    """How much of a succeeded charge went back."""
    payment_method: str
    """The gateway's token: a later try sends the same parameters."""
    business_ref: str | None
    """What was paid for, as the event says."""
    refund_of: str | None
    """Refunds: payment_id of the charge."""
    attempts: int
    """Gateway calls made so far, in all units."""
    ever_ambiguous: bool
    """True if any call may have reached the gateway unseen: such a payment never fails by a timer."""
    requested_at: int
    """The event's own time."""
    first_seen_at: int
    """The broker's append time of the payment's first record: the age that counts for gateway keys."""
    processed_at: int
    """When `status` was last decided."""
    next_try_at: int | None
    """Open and not parked: when a nudge is due. Else None."""
    source: Source
    """The first event; a settling result carries it."""
    last_error: str | None
    """Text of the last call that gave no answer, for people."""


def payment_key(user_id: str, payment_id: str) -> str:
    """The key of a payment; neither id can hold a slash."""
    return f"{user_id}/{payment_id}"


def declare_payments(app: faust.App, **options: Any) -> Any:
    """Declare the table `payments`: `user_id/payment_id` -> PaymentEntry, partitioned by user_id."""
    return app.Table(
        "payments",
        help="what is known of each payment, by user_id/payment_id",
        key_type=str,
        value_type=dict,
        **options,
    )
