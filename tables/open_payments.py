"""The payments whose outcome is unknown: what a timer looks through after a start."""

from __future__ import annotations

from typing import Any, TypedDict

import faust


class OpenPayment(TypedDict):
    """The value under `user_id/payment_id`, as long as the payment's entry is `unknown`.

    Written by the agents that write `payments`, in the same unit; deleted when the payment is settled or
    parked. Small, so that the timer need not read the whole dedup table.
    """

    next_try_at: int
    """When a nudge is due: milliseconds since the epoch."""


def declare_open_payments(app: faust.App, **options: Any) -> Any:
    """Declare the table `open_payments`: `user_id/payment_id` -> OpenPayment, partitioned by user_id."""
    return app.Table(
        "open_payments",
        help="payments with an unknown outcome, by user_id/payment_id",
        key_type=str,
        value_type=dict,
        **options,
    )
