"""The one gateway call sequence: start, account, window, call, verdict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from msgspec import Struct

from streamsocial_billing.domain.gateway_calls import (
    Answer,
    Cancellation,
    ChargeRequest,
    Outcome,
    Query,
    RefundRequest,
)
from streamsocial_billing.domain.outcomes import (
    INTERNAL_ERROR,
    TOO_OLD_TO_CALL,
    Called,
    Verdict,
    account_forbids,
    verdict,
)
from streamsocial_billing.gateways.base import Cancels, Gateway, call_until

logger = logging.getLogger(__name__)


class Call(Struct, frozen=True):
    """A call to make.

    account      the payment's: nobody is called while the gateway has another one; empty: any will do
    too_old      the gateway may have forgotten the key since it may have got to know it: nobody is called
    within_s     for all tries, waits and parsing
    once         one try; else the same again, with the same key, until `within_s` is over
    """

    request: ChargeRequest | RefundRequest
    account: str
    too_old: bool
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
        if plan.too_old:
            return Called(TOO_OLD_TO_CALL, account)
        is_charge = request.action == "charge"
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
    return await _answered(gateway, lambda: gateway.find(query, timeout_s=within_s), account)


async def cancel(gateway: Gateway, query: Query, account: str, within_s: float) -> Asked:
    """What the intent that `query` names is after it was asked to be canceled: start, account, call.

    Where the gateway cannot cancel that is an error of ours: it has no intents.
    """
    if not isinstance(gateway, Cancels):
        logger.error("gateway %s has no intents: %s is not canceled", gateway.name, query.intent)
        return Asked(None, account)
    request = Cancellation(query)
    return await _answered(gateway, lambda: gateway.cancel(request, timeout_s=within_s), account)


async def _answered(gateway: Gateway, call: Callable[[], Awaitable[Answer]], account: str) -> Asked:
    try:
        await gateway.start()
        forbidden = account_forbids(gateway, account)
        if forbidden is not None:
            return Asked(None, account, forbidden)
        return Asked(await call(), account or gateway.account)
    except Exception:
        logger.exception("gateway %s: internal error in a question", gateway.name)
        return Asked(None, account or gateway.account)
