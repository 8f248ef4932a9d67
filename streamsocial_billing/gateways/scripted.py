"""A gateway in memory that plays the script it finds in the payment method.

`"lost+4, not_sent@2, succeeded"`: the first call of a key charges but the reply is lost after 4 seconds,
the second is proven unsent with the wish to wait 2 seconds, the third and all later ones succeed. Steps:
succeeded, declined, invalid, mismatch, not_sent, ambiguous (not charged), lost (charged, then ambiguous).
Anything else, such as `pm_card_visa`, succeeds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from streamsocial_billing.gateways.base import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
)

_STEP = re.compile(r"\s*(?P<name>[a-z_]+)(@(?P<after>[\d.]+))?(\+(?P<takes>[\d.]+))?\s*")


class ScriptedGateway:
    """Keeps one charge per idempotency key in `charges` (key -> reference) and every call in `calls`.

    `calls` holds (key, timeout_s) pairs, in order. `sleep` lets scripted seconds pass.
    """

    name = "simulated"
    account = "acct_scripted"

    def __init__(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self.calls: list[tuple[str, float]] = []
        self.charges: dict[str, str] = {}
        self._sleep = sleep

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Play the step whose number is the count of earlier calls with this key; the last one stays."""
        key = request.idempotency_key
        step = sum(1 for called, _ in self.calls if called == key)
        self.calls.append((key, timeout_s))
        steps = request.payment_method.split(",")
        scripted = _STEP.fullmatch(steps[min(step, len(steps) - 1)])
        name = scripted["name"] if scripted else "succeeded"
        takes_s = float(scripted["takes"] or 0) if scripted else 0.0
        if name in {"succeeded", "lost"} or name not in _OUTCOMES:
            self.charges.setdefault(key, f"ch_scripted_{len(self.charges) + 1}")
        if takes_s > 0:
            await self._sleep(min(takes_s, timeout_s))
        if takes_s > timeout_s:
            return Ambiguous("timeout")
        if name == "not_sent" and scripted and scripted["after"]:
            return NotSent("rate_limited", float(scripted["after"]))
        return _OUTCOMES.get(name) or Succeeded(self.charges[key])


_OUTCOMES: dict[str, Outcome] = {
    "declined": Declined("card_declined", "ch_scripted_declined"),
    "invalid": Invalid("parameter_invalid"),
    "mismatch": KeyMismatch("idempotency_error"),
    "not_sent": NotSent("unreachable"),
    "ambiguous": Ambiguous("reset"),
    "lost": Ambiguous("reset"),
}
