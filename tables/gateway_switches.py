"""Which gateways people have stopped."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NotRequired, TypedDict

import faust

from tables.rows import reader_of


class SwitchOrder(TypedDict):
    """Who ordered it, why, when (milliseconds since the epoch)."""

    actor: str
    reason: str
    at: int


class GatewaySwitch(TypedDict):
    """The value under `every:{partition}/{gateway}`: the newest order about a gateway, and the first alike.

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
    first: NotRequired[SwitchOrder]
    """The order that brought the present state, where the newest one only repeated it. Missing: the newest
    one did, or a release that did not keep it wrote the row. Read it with `first_order`."""


read_switch: Final = reader_of("a gateway's switch", GatewaySwitch)


def first_order(switch: GatewaySwitch) -> SwitchOrder:
    """The order that brought the gateway into its present state: since when, by whom, why."""
    return switch.get("first") or newest_order(switch)


def repeated_order(switch: GatewaySwitch) -> SwitchOrder | None:
    """The newest order, if it only repeated the one before; else None."""
    return newest_order(switch) if switch.get("first") else None


def newest_order(switch: GatewaySwitch) -> SwitchOrder:
    """The newest order of all, whatever it changed."""
    return {"actor": switch["actor"], "reason": switch["reason"], "at": switch["at"]}


@lru_cache(maxsize=10_000)
def switch_key(partition: int, gateway: str) -> str:
    """The key of a task's row about a gateway; its owner is the key of the command's copy for that task."""
    return f"every:{partition}/{gateway}"


def declare_gateway_switches(app: faust.App, **options: Any) -> Any:
    """Declare the table `gateway_switches`: `every:{partition}/{gateway}` -> GatewaySwitch, for each task."""
    table: Any = app.Table(
        "gateway_switches",
        help="which gateways are stopped, by every:{partition}/{gateway}",
        key_type=str,
        value_type=dict,
        **options,
    )
    table.in_memory = True  # every call asks for its gateway's row
    return table
