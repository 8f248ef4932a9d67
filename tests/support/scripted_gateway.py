"""A gateway in memory that plays the script it finds in the payment method.

`"lost+4, not_sent@2, succeeded"`: the first call of a key charges but the reply is lost after 4 seconds,
the second is proven unsent with the wish to wait 2 seconds, the third and all later ones succeed. Steps:
succeeded, declined, soft (a soft decline), invalid, mismatch, not_sent, ambiguous (not charged), lost
(charged, then ambiguous), stored_error (not charged, and a repeat only brings it again), breaker_open.
Anything else, such as `pm_card_visa`, succeeds. A refund plays `refund_script`; `find` answers what
`answers` holds for the key, one after the other, the last one for ever; without it the truth.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
    Traits,
)

_STEP = re.compile(r"\s*(?P<name>[a-z_]+)(@(?P<after>[\d.]+))?(\+(?P<takes>[\d.]+))?\s*")


class ScriptedGateway:
    """Keeps what moved in `charges`, `refunds` (key -> reference) and every call in `calls`.

    `calls` holds (key, timeout_s) pairs in order, `questions` the queries. `sleep` lets scripted seconds
    pass, `now_ms` dates movements. Name, account and traits can be set.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        *,
        name: str = "simulated",
        account: str = "acct_scripted",
        traits: Traits | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.name = name
        self.account = account
        self.traits = traits or Traits(key_safe_window_s=64_800, consistency_delay_s=5)
        self.calls: list[tuple[str, float]] = []
        self.questions: list[Query] = []
        self.charges: dict[str, str] = {}
        self.refunds: dict[str, str] = {}
        self.refund_script = "succeeded"
        self.answers: dict[str, list[Answer]] = {}
        self._moved: dict[str, Movement] = {}
        self._sleep = sleep
        self._now_ms = now_ms

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Play the step whose number is the count of earlier calls with this key; the last one stays."""
        return await self._play(request, request.payment_method, self.charges, "ch", timeout_s)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Like `charge`, by `refund_script`."""
        return await self._play(request, self.refund_script, self.refunds, "re", timeout_s)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """The next of `answers`, or what really moved under the key."""
        self.questions.append(query)
        scripted = self.answers.get(query.idempotency_key)
        if scripted:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        moved = self._moved.get(query.idempotency_key)
        if moved is None or moved.kind != query.action:
            return Absent()
        return Found(
            gateway_ref=moved.gateway_ref, status="succeeded", reason=None, amount_minor=moved.amount_minor,
            currency=moved.currency, user_id=moved.user_id, payment_id=moved.payment_id,
        )  # fmt: skip

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """What moved, in order."""
        for moved in list(self._moved.values()):
            if since_ms <= moved.created_ms < until_ms:
                yield moved

    async def _play(
        self, request: ChargeRequest | RefundRequest, script: str, done: dict[str, str], prefix: str,
        timeout_s: float,
    ) -> Outcome:  # fmt: skip
        key = request.idempotency_key
        step = sum(1 for called, _ in self.calls if called == key)
        self.calls.append((key, timeout_s))
        steps = script.split(",")
        scripted = _STEP.fullmatch(steps[min(step, len(steps) - 1)])
        name = scripted["name"] if scripted else "succeeded"
        takes_s = float(scripted["takes"] or 0) if scripted else 0.0
        if (name in {"succeeded", "lost"} or name not in _OUTCOMES) and key not in done:
            done[key] = f"{prefix}_scripted_{len(done) + 1}"
            self._moved[key] = self._movement(request, done[key])
        if takes_s > 0:
            await self._sleep(min(takes_s, timeout_s))
        if takes_s > timeout_s:
            return Ambiguous("timeout")
        if name == "not_sent" and scripted and scripted["after"]:
            return NotSent("rate_limited", float(scripted["after"]))
        return _OUTCOMES.get(name) or Succeeded(done[key])

    def _movement(self, request: ChargeRequest | RefundRequest, ref: str) -> Movement:
        refund = isinstance(request, RefundRequest)
        return Movement(
            gateway_ref=ref, kind="refund" if refund else "charge", status="succeeded",
            amount_minor=request.amount_minor, currency=request.currency, created_ms=self._now_ms(),
            ref=request.idempotency_key, payment_id=request.payment_id, user_id=request.user_id,
            charge_ref=request.charge_ref if isinstance(request, RefundRequest) else None,
        )  # fmt: skip


_OUTCOMES: dict[str, Outcome] = {
    "declined": Declined("card_declined", "ch_scripted_declined"),
    "soft": Declined("insufficient_funds", "ch_scripted_declined", soft=True),
    "invalid": Invalid("parameter_invalid"),
    "mismatch": KeyMismatch("idempotency_error"),
    "not_sent": NotSent("unreachable"),
    "breaker_open": NotSent("breaker_open"),
    "ambiguous": Ambiguous("reset"),
    "lost": Ambiguous("reset"),
    "stored_error": Ambiguous("http_500", ask_only=True),
}
