"""The tables of the app, one file each, and the one list of them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import faust

from tables.awaited_charges import declare_awaited_charges
from tables.business_refs import declare_business_refs
from tables.charges import declare_charges
from tables.gateway_events import declare_gateway_events
from tables.gateway_switches import declare_gateway_switches
from tables.open_payments import declare_open_payments
from tables.payments import declare_payments
from tables.subscriptions import declare_subscriptions
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
ALL: Final = (*ROWS, COUNTERS)
"""The names of all tables: whatever looks at each of them derives from this list."""


def declare_all(app: faust.App, make_counters: Callable[..., Any]) -> dict[str, Any]:
    """Declare every table of ALL, by its name; `make_counters` as `declare_task_counters` takes it."""
    declared = {name: declare(app) for name, declare in ROWS.items()}
    return {**declared, COUNTERS: declare_task_counters(app, make_counters)}
