"""A gateway inside the process, for benchmarks of everything but the network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    Answer,
    ChargeRequest,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
    Traits,
)

_RESOLUTION_S = 0.001
"""So much earlier a call may end: a timer for each moment would cost more than the rest."""


class InstantGateway:
    """Waits `delay_s` seconds, then succeeds; the reference is a pure function of the key.

    It remembers nothing, so it cannot be asked and has no list.
    """

    name = "simulated"
    account = "acct_instant"
    traits = Traits(key_safe_window_s=30 * 86_400, consistency_delay_s=0)

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Succeed after the delay; Ambiguous("timeout") where the delay is longer than `timeout_s`."""
        ref = f"ch_{request.idempotency_key[-24:]}"
        if self._delay_s > timeout_s:
            return await self._later(ref, timeout_s)
        if self._delay_s > 0:
            await self._delay()  # here, not in `_later`: one coroutine less to wake
        return Succeeded(ref)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Like `charge`."""
        return await self._later(f"re_{request.idempotency_key[-24:]}", timeout_s)

    async def _later(self, ref: str, timeout_s: float) -> Outcome:
        if self._delay_s > timeout_s:
            await asyncio.sleep(timeout_s)
            return Ambiguous("timeout")
        if self._delay_s > 0:
            await self._delay()
        return Succeeded(ref)

    def _delay(self) -> asyncio.Future[None]:
        """All wait equally long, so that one timer does for them."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if not self._waiting:
            loop.call_later(self._delay_s, self._release)
        self._waiting.append((loop.time() + self._delay_s, waiter))
        return waiter

    def _release(self) -> None:
        loop, waiting = asyncio.get_running_loop(), self._waiting
        until = loop.time() + _RESOLUTION_S
        while waiting and waiting[0][0] <= until:
            waiter = waiting.popleft()[1]
            if not waiter.done():
                waiter.set_result(None)
        if waiting:
            loop.call_at(waiting[0][0], self._release)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """Always NotSent: Absent would be a lie."""
        return NotSent("remembers_nothing")

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """Nothing: it keeps no list."""
        nothing: tuple[Movement, ...] = ()
        for moved in nothing:
            yield moved
