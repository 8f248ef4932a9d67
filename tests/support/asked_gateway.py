"""A scripted gateway whose script belongs to the test, not to the payment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.gateway_calls import (
    Answer,
    ChargeRequest,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
    Traits,
)

HOUR_S = 3600
TRAITS = Traits(18 * HOUR_S, 60, min_minor={"USD": 50}, max_minor={"USD": 99_999_999})


class AskedGateway(ScriptedGateway):
    """`script`: what the next calls bring, whatever their payment; an exception is raised.

    `found`: what questions bring, one after the other, the last one for ever; empty: the truth. `requests`
    holds every request.
    """

    def __init__(self) -> None:
        super().__init__(traits=TRAITS)
        self.script: list[Outcome | Exception] = []
        self.found: list[Answer] = []
        self.requests: list[ChargeRequest | RefundRequest] = []

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """As the script says, else as the payment method says."""
        return await self._scripted(request, super().charge, timeout_s)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """As the script says, else it succeeds."""
        return await self._scripted(request, super().refund, timeout_s)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """As the test says, else what really moved."""
        truth = await super().find(query, timeout_s=timeout_s)
        if not self.found:
            return truth
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]

    async def _scripted(
        self,
        request: ChargeRequest | RefundRequest,
        call: Callable[..., Awaitable[Outcome]],
        timeout_s: float,
    ) -> Outcome:
        self.requests.append(request)
        step = self.script.pop(0) if self.script else None
        if step is None or isinstance(step, Succeeded):
            return await call(request, timeout_s=timeout_s)
        self.calls.append((request.idempotency_key, timeout_s))
        if isinstance(step, Exception):
            raise step
        return step
