"""What runs beside the agents for as long as the worker does: timers, the live audit."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from faust_exactly_once import Layer, Nudger
from streamsocial_billing.audit.watching import LiveAudit
from streamsocial_billing.payments.gateway_availability import Gatekeeper
from streamsocial_billing.payments.gateway_event import is_forgettable
from streamsocial_billing.payments.retention import SweepTimer
from streamsocial_billing.payments.retry import DueTimer
from streamsocial_billing.timers.renewals import RenewalTimer
from streamsocial_billing.web.status.overview import Overview


def run_beside(
    app: Any, layer: Layer, nudger: Nudger, gatekeeper: Gatekeeper, live: LiveAudit, overview: Overview
) -> None:
    """Start the timers with the worker; at its end close `nudger` and the gateways."""
    due = DueTimer(layer, nudger, gatekeeper.takes, gatekeeper.census)
    _until_the_end(app, "nudge_due_payments", due.run)
    _until_the_end(app, "nudge_due_subscriptions", RenewalTimer(layer, nudger).run)
    _until_the_end(app, "sweep_old_payments", SweepTimer(layer, nudger).run)
    messages = SweepTimer(layer, nudger, "gateway_events", is_forgettable, "gateway_event")
    _until_the_end(app, "sweep_old_messages", messages.run)
    _until_the_end(app, "watch_gateways", gatekeeper.run)
    _until_the_end(app, "audit_all_the_time", live.run)
    _until_the_end(app, "look_at_the_system", overview.run)

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_gateways(*_: Any, **__: Any) -> None:
        nudger.close()
        for gateway in gatekeeper.guarded.values():
            await gateway.close()


def _until_the_end(app: Any, name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run it as a task of the worker, who cancels it at the end."""

    async def task() -> None:
        with suppress(asyncio.CancelledError):
            await run()

    task.__name__ = task.__qualname__ = name
    app.task(task)
