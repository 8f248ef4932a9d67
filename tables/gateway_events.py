"""Which messages of gateways were handled."""

from __future__ import annotations

from typing import Any, TypedDict

import faust


class SeenEvent(TypedDict):
    """The value under `user_id/gateway:event_id`.

    Written in the unit that handles the message, so a second delivery of it changes nothing. Kept 35 days,
    longer than `gateway-events` keeps the message itself; then dropped in a unit of its user.
    """

    at: int
    """When it was handled: milliseconds since the epoch."""


def seen_key(user_id: str, gateway: str, event_id: str) -> str:
    """The key of a message; what follows the first slash is the rest, whatever an event_id holds."""
    return f"{user_id}/{gateway}:{event_id}"


def declare_gateway_events(app: faust.App, **options: Any) -> Any:
    """Declare the table `gateway_events`: `user_id/gateway:event_id` -> SeenEvent, by user_id."""
    return app.Table(
        "gateway_events",
        help="handled messages of gateways, by user_id/gateway:event_id",
        key_type=str,
        value_type=dict,
        **options,
    )
