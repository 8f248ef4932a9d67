"""A gateway inside the process, for benchmarks of everything but the network."""

from __future__ import annotations

import asyncio

from streamsocial_billing.gateways.base import Ambiguous, ChargeRequest, Outcome, Succeeded


class InstantGateway:
    """Waits `delay_s` seconds, then succeeds; the reference is a pure function of the key."""

    name = "simulated"
    account = "acct_instant"

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Succeed after the delay; Ambiguous("timeout") where the delay is longer than `timeout_s`."""
        if self._delay_s > timeout_s:
            await asyncio.sleep(timeout_s)
            return Ambiguous("timeout")
        if self._delay_s > 0:
            await asyncio.sleep(self._delay_s)
        return Succeeded(f"ch_{request.idempotency_key[-24:]}")
