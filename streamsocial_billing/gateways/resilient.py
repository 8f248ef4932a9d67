"""A gateway behind its bound on calls in flight, its breaker, its switch; to callers a gateway like any.

Who is not let through gets NotSent with a reason of NOT_CALLED at once: a handler that waited here would
hold its permit for nothing, and with it the payments of other gateways.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from streamsocial_billing.domain.gateway_calls import (
    NOT_CALLED,
    Ambiguous,
    Answer,
    Cancellation,
    ChargeRequest,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
)
from streamsocial_billing.gateways.base import Cancels, Gateway
from streamsocial_billing.gateways.breaker import Breaker, Rules
from streamsocial_billing.gateways.http import CONNECT_SHARE
from streamsocial_billing.gateways.permits import Permits

logger = logging.getLogger(__name__)

OURS: Final = NOT_CALLED | {"no_free_connection", "not_started", "remembers_nothing", "internal_error"}
"""Reasons that say nothing about the gateway."""
T = TypeVar("T", Outcome, Answer)


class ResilientGateway:
    """Lets calls through to `gateway`, at most `permits` at a time; further ones wait in their order.

    `why_not` says why the gateway of this name is not called at all now, a reason of NOT_CALLED, else None.
    `may_hang` is True where a call that hangs holds up nobody: after a first probe that failed, the breaker's
    probes are made from there.
    Lists (`movements`) pass: they are read, rarely, and no payment waits for them.
    """

    def __init__(
        self, gateway: Gateway, permits: int, rules: Rules, why_not: Callable[[str], str | None],
        may_hang: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self.wrapped = gateway
        self.name = gateway.name
        self.traits = gateway.traits
        self.breaker = Breaker(rules)
        self._why_not = why_not
        self._may_hang = may_hang
        self._permits = Permits(permits)

    def __str__(self) -> str:
        return str(self.wrapped)

    @property
    def account(self) -> str:
        """See `Gateway.account`."""
        return self.wrapped.account

    def permits(self) -> float:
        """How many calls the breaker would admit now: math.inf, 1, 0."""
        return self.breaker.permits(time.monotonic())

    def open_for_s(self) -> float | None:
        """How long ago the breaker opened, probes that failed since then not counting; None: it is closed."""
        at = self.breaker.left_closed_at
        return None if at is None else time.monotonic() - at

    async def start(self) -> None:
        """See `Gateway.start`; some ask the gateway then, which nobody does while it is not called."""
        if self.permits() and self._why_not(self.name) is None:
            await self.wrapped.start()

    async def close(self) -> None:
        """See `Gateway.close`."""
        await self.wrapped.close()

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """See `Gateway.charge`; starts it, too, once it may be called: who compares no account did not."""
        return await self._guard(self.wrapped.charge, request, timeout_s, start=True)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """See `Gateway.refund`."""
        return await self._guard(self.wrapped.refund, request, timeout_s)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """See `Gateway.find`."""
        return await self._guard(self.wrapped.find, query, timeout_s)

    async def cancel(self, request: Cancellation, *, timeout_s: float) -> Answer:
        """See `Cancels.cancel`; raises TypeError where the gateway has no intents."""
        if not isinstance(self.wrapped, Cancels):
            raise TypeError(f"{self} has no intents")
        return await self._guard(self.wrapped.cancel, request, timeout_s)

    def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """See `Gateway.movements`."""
        return self.wrapped.movements(since_ms, until_ms)

    async def _guard(
        self, call: Callable[..., Awaitable[T]],
        said: ChargeRequest | RefundRequest | Query | Cancellation, timeout_s: float, *, start: bool = False,
    ) -> T | NotSent:  # fmt: skip
        """Make the call, its gateway started before it, if nothing is in the way: permit, switch, breaker."""
        breaker, permits, outcome = self.breaker, self._permits, None
        if permits.free and breaker.state == "closed":  # nearly always
            permits.free -= 1
        else:
            began = time.monotonic()
            no_permit = await self._wait_for_permit(timeout_s)
            if no_permit is not None:
                return NotSent(no_permit)
            timeout_s -= time.monotonic() - began
        try:
            why = self._why_not(self.name)
            if why is not None:
                return NotSent(why)
            period = breaker.period if breaker.state == "closed" else self._admit()
            if period is None:
                return NotSent("breaker_open")
            probing = breaker.state == "half_open"
            try:
                if start:
                    await self.wrapped.start()
                outcome = await call(said, timeout_s=timeout_s)
            finally:
                self._ended(period, said.idempotency_key, outcome)
            if probing and isinstance(outcome, NotSent):  # it uses up no try of the payment that went ahead
                return NotSent("breaker_open", outcome.retry_after_s)
            return outcome
        finally:
            if permits.waiting:
                permits.leave()
            else:
                permits.free += 1

    async def _wait_for_permit(self, timeout_s: float) -> str | None:
        """Hold a permit, or say why there is none."""
        if self.breaker.state != "closed" and not self.permits():
            return "breaker_open"
        return None if await self._permits.wait(timeout_s * CONNECT_SHARE) else "no_free_connection"

    # -- the breaker

    def _admit(self) -> int | None:
        before = self.breaker.state
        if before != "closed" and self.breaker.failed_probes and not self._may_hang():
            return None
        period = self.breaker.admit(time.monotonic())
        if self.breaker.state != before:
            self._log_state(before)
        return period

    def _ended(self, period: int, key: str, outcome: Outcome | Answer | None) -> None:
        """Tell the breaker; None: cancelled, or an error of ours."""
        breaker = self.breaker
        before, well, why = breaker.state, None, ""
        if outcome is not None:
            well = went_well(outcome)
            if not well and isinstance(outcome, NotSent | Ambiguous):
                why = outcome.reason
        breaker.ended(period, key, well, time.monotonic(), why)
        if breaker.state != before:
            self._log_state(before)

    def _log_state(self, before: str) -> None:
        """Log a change."""
        state = self.breaker.state
        level, meaning = CHANGES[before, state]
        logger.log(
            level, "gateway %s: breaker %s -> %s: %s", self.name, before, state, meaning,
            extra={"gateway": self.name, "breaker": state},
        )  # fmt: skip


CHANGES: Final = {
    ("closed", "open"): (logging.ERROR, "too many calls fail; its payments wait, one is tried now and then"),
    ("open", "half_open"): (logging.DEBUG, "one call decides"),
    ("half_open", "open"): (logging.DEBUG, "that call failed, too"),
    ("half_open", "closed"): (logging.WARNING, "it works again; what waited is tried now"),
}
"""The level with which a change is logged, what it means."""


def went_well(outcome: Outcome | Answer) -> bool | None:
    """True if the gateway did its work (a decline is that, too), False if not, None: nothing is known."""
    match outcome:
        case NotSent(reason):
            return None if reason in OURS else False
        case Ambiguous(reason, ask_only):
            if ask_only or reason == "in_flight":
                return True  # it has the payment
            return None if reason in OURS else False
        case _:
            return True
