"""The payments whose outcome is open: what a timer looks through after a start."""

from __future__ import annotations

from typing import Any, Final, NotRequired, TypedDict

import faust

from tables.rows import reader_of


class OpenPayment(TypedDict):
    """The value under `user_id/payment_id`, as long as the payment's entry is `unknown` or `parked`.

    Written by the agents that write `payments`, in the same unit; deleted when the payment is settled. Small,
    so that neither the timer nor an alarm need read the whole dedup table. Times are ms since the epoch.
    Earlier releases wrote `next_try_at` alone, of unknown payments alone; then all up to `gateway`.
    """

    next_try_at: int | None
    """When a trigger is due; None: parked, it waits for a person."""
    status: NotRequired[str]
    """`unknown` or `parked`."""
    since: NotRequired[int]
    """The append time of the payment's first event."""
    gateway: NotRequired[str]
    """Where it has to be settled."""
    account: NotRequired[str]
    """The account there; empty while it was never known."""
    amount_minor: NotRequired[int]
    """Minor units of `currency`."""
    currency: NotRequired[str]
    """ISO 4217, upper-case."""
    look_at: NotRequired[int]
    """Its intent waits for its customer: when that is asked for. Then `next_try_at` is None."""


read_open_payment: Final = reader_of("an open payment", OpenPayment)


def declare_open_payments(app: faust.App, **options: Any) -> Any:
    """Declare the table `open_payments`: `user_id/payment_id` -> OpenPayment, partitioned by user_id."""
    return app.Table(
        "open_payments",
        help="payments with an open outcome, by user_id/payment_id",
        key_type=str,
        value_type=dict,
        **options,
    )
