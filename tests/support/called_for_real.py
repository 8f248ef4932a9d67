"""A gateway for an application in virtual time whose calls go to a real server, over the real adapter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from streamsocial_billing.domain.gateway_calls import (
    Answer,
    Cancellation,
    ChargeRequest,
    Movement,
    Outcome,
    Query,
    RefundRequest,
)
from streamsocial_billing.gateways.base import Cancels
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.gateways.stripe.client import StripeGateway

T = TypeVar("T")
WITHIN_S = 60.0


class CalledForReal:
    """`gateway` on a loop and a thread of its own; who calls waits for it. Use it in a `with`."""

    def __init__(self, gateway: StripeGateway | SimulatedGateway | PayPalGateway) -> None:
        self._gateway = gateway
        self.name, self.account, self.traits = gateway.name, gateway.account, gateway.traits
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> CalledForReal:
        self._thread.start()
        self._wait(self._gateway.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._gateway.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def start(self) -> None:
        """It has been."""

    async def close(self) -> None:
        """The end of the `with` does it."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """See `Gateway.charge`; no time-out, as the clock of who calls stands still meanwhile."""
        return self._wait(self._gateway.charge(request, timeout_s=WITHIN_S))

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """See `Gateway.refund`."""
        return self._wait(self._gateway.refund(request, timeout_s=WITHIN_S))

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """See `Gateway.find`."""
        return self._wait(self._gateway.find(query, timeout_s=WITHIN_S))

    async def cancel(self, request: Cancellation, *, timeout_s: float) -> Answer:
        """See `Cancels.cancel`."""
        assert isinstance(self._gateway, Cancels)
        return self._wait(self._gateway.cancel(request, timeout_s=WITHIN_S))

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """See `Gateway.movements`."""
        for one in self._wait(_all(self._gateway.movements(since_ms, until_ms))):
            yield one

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(2 * WITHIN_S)


async def _all(rows: AsyncIterator[Movement]) -> list[Movement]:
    return [row async for row in rows]
