"""The subscriptions of each user."""

from __future__ import annotations

from typing import Any, Final, TypedDict

import faust

from tables.rows import reader_of


class Pending(TypedDict):
    """The payment of a period that is under way; nothing else is sent for the subscription meanwhile.

    Frozen when it was sent: should it be sent again, it is the same event, whatever was changed since.
    """

    payment_id: str
    business_ref: str
    ours: bool
    """False: a payment of somebody else's that holds the business_ref; its outcome is awaited."""
    status: str
    """`sent`: no outcome yet; `unknown`, `parked`: as its entry in `payments` says;
    `authentication_required`: it waits for its customer."""
    sent_at: int
    """When it was sent first."""
    amount_minor: int
    gateway: str
    payment_method: str


class Subscription(TypedDict):
    """What is renewed: the value under `user_id/subscription_id`.

    Written in the unit of the command that orders it, of the trigger that sends a period's payment, of the
    outcome of such a payment. Kept for ever: the ids of its payments are functions of its own, so none may be
    used again. Times are ms since the epoch, amounts minor units.
    """

    product: str
    """`subscription`, or `gift`."""
    amount_minor: int
    """The price of each period that was not tried yet."""
    currency: str
    gateway: str
    payment_method: str
    """The gateway's token."""
    interval: str
    """`day`, `week`, `month` or `year`."""
    anchor: int
    """When period 0 begins; the others are counted from it."""
    periods_left: int | None
    """How many more periods are to be paid; None: until it is cancelled."""
    state: str
    """`active`; `past_due`: a payment was declined, another try comes; `unpaid`: no try comes before a new
    payment method; `cancelled`; `ended`: all its periods were paid."""
    reason: str | None
    """Why it is past_due or unpaid, a code."""
    period: int
    """The period that is to be paid next, or is being paid."""
    attempt: int
    """How many payments were made for that period."""
    due_amount_minor: int | None
    """The price of that period once it was tried: later tries ask the same."""
    first_declined_at: int | None
    """What the days of dunning are counted from."""
    dunning_step: int
    """How many of the days of dunning are used up."""
    next_at: int | None
    """When the scheduler has to act; None: not before something else happens."""
    pending: Pending | None
    ends_at: int | None
    """Cancelled, ended: until when it was paid for, or when it was stopped."""
    until_paid_end: bool
    """Cancelled at the end of what is paid for: a payment under way that succeeds still extends it."""
    terms: str
    """Hex SHA-256 of what was ordered at first: the same order again is no second subscription."""
    created_at: int
    changed_at: int


read_subscription: Final = reader_of("a subscription", Subscription)


def subscription_key(user_id: str, subscription_id: str) -> str:
    """The key of a subscription; neither id holds a slash."""
    return f"{user_id}/{subscription_id}"


def declare_subscriptions(app: faust.App, **options: Any) -> Any:
    """Declare the table `subscriptions`: `user_id/subscription_id` -> Subscription; partitioned by user."""
    return app.Table(
        "subscriptions",
        help="what is renewed, by user_id/subscription_id",
        key_type=str,
        value_type=dict,
        **options,
    )
