"""The one gateway call sequence: start, account, window, call, verdict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from msgspec import Struct

from streamsocial_billing.domain.gateway_calls import Answer, ChargeRequest, Outcome, Query, RefundRequest
from streamsocial_billing.domain.outcomes import (
    INTERNAL_ERROR,
    TOO_OLD_TO_CALL,
    Called,
    Verdict,
    account_forbids,
    verdict,
)
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway, call_until

logger = logging.getLogger(__name__)


class Call(Struct, frozen=True):
    """A call to make.

    account      the payment's: nobody is called while the gateway has another one; empty: any will do
    window_from  ms since the epoch: since when the gateway may have known the key; None: that is not asked
    within_s     for all tries, waits and parsing
    once         one try; else the same again, with the same key, until `within_s` is over
    """

    request: ChargeRequest | RefundRequest
    account: str
    window_from: int | None
    within_s: float
    once: bool = False


async def call(gateway: Gateway, plan: Call) -> Called:
    """Make the call, or find that it must not be made; whatever goes wrong meanwhile is `unknown`."""
    request, account = plan.request, plan.account
    try:
        account = plan.account or gateway.account
        if plan.account or not account:  # some know theirs only when they have asked for it
            await gateway.start()
            forbidden = account_forbids(gateway, plan.account)
            if forbidden is not None:
                return Called(forbidden, plan.account, forbidden=True)
            account = gateway.account
        if plan.window_from is not None and gateway.traits.past_window(plan.window_from, now_ms()):
            return Called(TOO_OLD_TO_CALL, account)
        is_charge = isinstance(request, ChargeRequest)
        one: Callable[..., Awaitable[Outcome]] = gateway.charge if is_charge else gateway.refund
        if plan.once:
            found = verdict(await one(request, timeout_s=plan.within_s))
            return Called(found, account, 0 if found.waits else 1)
        outcome, calls, spent_ms = await call_until(
            one, request, deadline_s=plan.within_s, clock=time.monotonic, sleep=asyncio.sleep
        )
        found = verdict(outcome)
    except Exception:
        logger.exception("gateway %s: internal error after the call had started", gateway.name)
        return Called(INTERNAL_ERROR, account or gateway.account, 1)
    if found.error is not None and not found.waits:  # else the gatekeeper says it once for all
        logger.warning(
            "%s/%s is %s: %s (%s)",
            request.user_id, request.payment_id, found.status, found.error, gateway,
            extra={"user_id": request.user_id, "payment_id": request.payment_id, "status": found.status},
        )  # fmt: skip
    return Called(found, account, calls, spent_ms if calls else None)


class Asked(NamedTuple):
    """What a question brought.

    answer     the gateway's; None: nobody was asked, or the answer was lost by an error of ours
    account    that was asked; the payment's own where nobody was
    forbidden  why nobody was asked
    """

    answer: Answer | None
    account: str
    forbidden: Verdict | None = None


async def ask(gateway: Gateway, query: Query, account: str, within_s: float) -> Asked:
    """What the gateway has under our reference: start, account, question."""
    try:
        await gateway.start()
        forbidden = account_forbids(gateway, account)
        if forbidden is not None:
            return Asked(None, account, forbidden)
        return Asked(await gateway.find(query, timeout_s=within_s), account or gateway.account)
    except Exception:
        logger.exception("gateway %s: internal error in a question", gateway.name)
        return Asked(None, account or gateway.account)
