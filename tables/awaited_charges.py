"""What waits for a charge whose outcome is not known yet."""

from __future__ import annotations

from typing import Any, TypedDict

import faust


class AwaitedCharge(TypedDict):
    """The value under `user_id/payment_id of the charge`.

    Written by the units that hold a refund, or that hear of a refund at the gateway before the charge's own
    event was handled; read in the unit that stores the charge's outcome. Deleted when nothing waits any more.
    """

    refunds: list[str]
    """payment_ids of held refunds, in their order; at most 100, others are found by their own triggers."""
    told: list[dict[str, Any]]
    """GatewayEvents, as on `gateway-events`, of refunds or disputes made at the gateway; at most 100."""
    refunded_minor: int
    """What refunds of ours gave back that were known before the charge was: its entry begins with it."""


def declare_awaited_charges(app: faust.App, **options: Any) -> Any:
    """Declare the table `awaited_charges`: `user_id/payment_id` -> AwaitedCharge, partitioned by user_id."""
    table: Any = app.Table(
        "awaited_charges",
        help="refunds that wait for their charge, by user_id/payment_id of the charge",
        key_type=str,
        value_type=dict,
        **options,
    )
    table.in_memory = True  # every charge looks, hardly any finds
    return table
