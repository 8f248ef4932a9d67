"""The tables of the app, one file each, and the one list of them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import faust

from tables.awaited_charges import AwaitedCharge, declare_awaited_charges
from tables.business_refs import BusinessRef, declare_business_refs
from tables.charges import ChargeState, declare_charges
from tables.gateway_events import SeenEvent, declare_gateway_events
from tables.gateway_switches import GatewaySwitch, declare_gateway_switches
from tables.open_payments import OpenPayment, declare_open_payments
from tables.payments import declare_payments
from tables.rows import Rows
from tables.subscriptions import Subscription, declare_subscriptions
from tables.task_counters import declare_task_counters

COUNTERS: Final = "task_counters"
ROWS: Final[Mapping[str, Callable[..., Any]]] = {
    "charges": declare_charges,
    "payments": declare_payments,
    "open_payments": declare_open_payments,
    "business_refs": declare_business_refs,
    "gateway_events": declare_gateway_events,
    "awaited_charges": declare_awaited_charges,
    "subscriptions": declare_subscriptions,
    "gateway_switches": declare_gateway_switches,
}
"""What declares each table of rows, by the table's name."""
TYPES: Final[Mapping[str, type]] = {
    "charges": ChargeState,
    "open_payments": OpenPayment,
    "business_refs": BusinessRef,
    "gateway_events": SeenEvent,
    "awaited_charges": AwaitedCharge,
    "subscriptions": Subscription,
    "gateway_switches": GatewaySwitch,
}
"""What a row is, by the table's name; of `payments` there are three kinds (`tables.payments.read_entry`)."""
ALL: Final = (*ROWS, COUNTERS)
"""The names of all tables: whatever looks at each of them derives from this list."""


def as_declared(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables that `declare_all` gave, without the check of what is read: for who writes only."""
    return {name: one.table if isinstance(one, Rows) else one for name, one in tables.items()}


def declare_all(app: faust.App, make_counters: Callable[..., Any]) -> dict[str, Any]:
    """Declare every table of ALL, by its name; `make_counters` as `declare_task_counters` takes it."""
    declared = {name: declare(app) for name, declare in ROWS.items()}
    declared |= {name: Rows(declared[name], kind) for name, kind in TYPES.items()}
    return {**declared, COUNTERS: declare_task_counters(app, make_counters)}
