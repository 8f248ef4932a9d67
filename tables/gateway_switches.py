"""Which gateways people have stopped."""

from __future__ import annotations

from typing import Any, TypedDict

import faust


class GatewaySwitch(TypedDict):
    """The value under `every:{partition}/{gateway}`: the newest order about a gateway.

    Every task has a row of its own, written in the unit of its copy of the command (`gateways stop`,
    `gateways start`): a task that moves or starts again knows it with its other state, before its first
    event. Of two orders the later `at` stands, in whatever order they arrive. Kept for ever.
    """

    gateway: str
    stopped: bool
    """True: no call is made, payments wait."""
    account: str | None
    """`gateways start --account`: the account to go on with, though open payments belong to another one."""
    actor: str
    reason: str
    at: int
    """When it was ordered: milliseconds since the epoch."""
    command_id: str


def switch_key(partition: int, gateway: str) -> str:
    """The key of a task's row about a gateway; its owner is the key of the command's copy for that task."""
    return f"every:{partition}/{gateway}"


def declare_gateway_switches(app: faust.App, **options: Any) -> Any:
    """Declare the table `gateway_switches`: `every:{partition}/{gateway}` -> GatewaySwitch, for each task."""
    return app.Table(
        "gateway_switches",
        help="which gateways are stopped, by every:{partition}/{gateway}",
        key_type=str,
        value_type=dict,
        **options,
    )
