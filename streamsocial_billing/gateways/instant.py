"""A gateway inside the process, for benchmarks of everything but the network."""

from __future__ import annotations

import asyncio
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


class InstantGateway:
    """Waits `delay_s` seconds, then succeeds; the reference is a pure function of the key.

    It remembers nothing, so it cannot be asked and has no list.
    """

    name = "simulated"
    account = "acct_instant"
    traits = Traits(key_safe_window_s=30 * 86_400, consistency_delay_s=0)

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Succeed after the delay; Ambiguous("timeout") where the delay is longer than `timeout_s`."""
        return await self._succeed(f"ch_{request.idempotency_key[-24:]}", timeout_s)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Like `charge`."""
        return await self._succeed(f"re_{request.idempotency_key[-24:]}", timeout_s)

    async def _succeed(self, ref: str, timeout_s: float) -> Outcome:
        if self._delay_s > timeout_s:
            await asyncio.sleep(timeout_s)
            return Ambiguous("timeout")
        if self._delay_s > 0:
            await asyncio.sleep(self._delay_s)
        return Succeeded(ref)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """Always NotSent: Absent would be a lie."""
        return NotSent("remembers_nothing")

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """Nothing: it keeps no list."""
        nothing: tuple[Movement, ...] = ()
        for moved in nothing:
            yield moved
