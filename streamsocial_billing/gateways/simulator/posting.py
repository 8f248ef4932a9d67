"""What a POST that moves money comes to: once per idempotency key, with the faults that are drawn.

It is answered only after the SQLite transaction of its charge is committed. Same key with the same
parameters: the stored reply with `Idempotent-Replayed: true`; with others: 400 `idempotency_error`; while
the first is under way: 409. Errors of validation are not stored, as at Stripe.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter

from aiohttp import web

from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.simulator.answers import (
    BROKEN,
    BUSY,
    GONE,
    JSON,
    JSON_REPLAYED,
    RATE_LIMITED,
    json_answer,
    refusal_of,
)
from streamsocial_billing.gateways.simulator.faults import Fault, FaultPlan, FaultSettings
from streamsocial_billing.gateways.simulator.intents import intent_reply, new_intent
from streamsocial_billing.gateways.simulator.ledger import Ledger
from streamsocial_billing.gateways.simulator.ledger_file import Entry, LedgerUnusable
from streamsocial_billing.gateways.simulator.shapes import (
    BadRequest,
    Charge,
    Reply,
    amount_of,
    charge_reply,
    new_charge,
    new_refund,
    params_hash,
    parse_body,
    refund_reply,
)

MAX_KEY_CHARACTERS = 255


class Posting:
    """Charges, refunds and intents over one open ledger.

    `plan`: which POST meets which fault; `drawn`, `replays`: how many did, how many were answered again.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.plan = FaultPlan(FaultSettings())
        self.drawn: Counter[str] = Counter()
        self.replays = 0
        self._ledger = ledger
        self._under_way: set[str] = set()
        self._refunding: Counter[str] = Counter()
        self._make = {
            "charges": self._charge, "refunds": self._refund, "payment_intents": self._intent,
        }  # fmt: skip

    async def charge(self, request: web.Request) -> web.StreamResponse:
        """Charge once per idempotency key."""
        return await self._post(request, "charges")

    async def refund(self, request: web.Request) -> web.StreamResponse:
        """Give back a part of a charge, or what is left of it, once per idempotency key."""
        return await self._post(request, "refunds")

    async def intent(self, request: web.Request) -> web.StreamResponse:
        """Make and confirm an intent once per idempotency key."""
        return await self._post(request, "payment_intents")

    async def _post(self, request: web.Request, endpoint: str) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key", "")
        if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isprintable():
            return refusal_of(BadRequest("parameter_missing", "The header Idempotency-Key is required."))
        self._ledger.count_call(key)
        fault = self.plan.draw()
        if fault is not None:
            self.drawn[fault.value] += 1
        if key in self._under_way:
            return json_answer(BUSY, 409)
        self._under_way.add(key)
        try:
            if self.plan.settings.latency_ms:
                await asyncio.sleep(self.plan.settings.latency_ms / 1000)
            refusal = self._refuse(fault)
            if refusal is not None:
                return refusal
            raw = await request.read()
            reply, replayed = await self._reply(endpoint, key, raw, request.content_type)
        except BadRequest as error:
            return refusal_of(error)
        except ConnectionResetError:
            return json_answer(GONE, 400)  # the caller went away before its request was read: nobody hears it
        except (sqlite3.Error, LedgerUnusable):
            return json_answer(BROKEN, 500)
        finally:
            self._under_way.discard(key)
        return await self._deliver(request, reply, replayed, fault)

    def _refuse(self, fault: Fault | None) -> web.Response | None:
        """The reply of a fault that strikes before the charge."""
        if fault is Fault.RATE_LIMIT:
            after = str(self.plan.settings.retry_after_s)
            return web.Response(body=RATE_LIMITED, status=429, headers={**JSON, "Retry-After": after})
        if fault is Fault.CONFLICT:
            return json_answer(BUSY, 409)
        if fault is Fault.ERROR_BEFORE:
            return json_answer(BROKEN, 500)
        return None

    async def _reply(self, endpoint: str, key: str, raw: bytes, content_type: str) -> tuple[Reply, bool]:
        """The stored reply of the key (True) or a new one, stored (False)."""
        params = parse_body(raw, content_type)
        hashed = params_hash(endpoint, params)
        stored = self._ledger.replies.get(key)
        if stored is None:
            return await self._make[endpoint](key, params, hashed), False
        if stored.params_hash != hashed:
            raise BadRequest("idempotency_error", "This key was used with other parameters.")
        self.replays += 1
        return stored, True

    async def _charge(self, key: str, params: dict[str, object], hashed: str) -> Reply:
        charge = new_charge(key, params, charge_id=new_id("ch"), now_ms=now_ms())
        reply = charge_reply(charge, hashed)
        await self._ledger.record(Entry(charge, reply))
        return reply

    async def _intent(self, key: str, params: dict[str, object], hashed: str) -> Reply:
        intent = new_intent(key, params, intent_id=new_id("pi"), now_ms=now_ms())
        reply = intent_reply(intent, hashed)
        await self._ledger.record(Entry(intent, reply))
        return reply

    async def _refund(self, key: str, params: dict[str, object], hashed: str) -> Reply:
        charge = self._refunded(params)
        if charge is None or charge.status != "succeeded":
            raise BadRequest("resource_missing", "No such succeeded charge.", 404)
        left = charge.amount - charge.refunded - self._refunding[charge.id]
        amount = amount_of(params) if "amount" in params else left
        if amount > left or left == 0:
            raise BadRequest("charge_already_refunded", f"At most {left} of this charge can be refunded.")
        refund = new_refund(key, params, charge, amount, refund_id=new_id("re"), now_ms=now_ms())
        reply = refund_reply(refund, hashed)
        self._refunding[charge.id] += amount  # reserved: another refund may come before the commit
        try:
            await self._ledger.record(Entry(refund, reply))
        finally:
            self._refunding[charge.id] -= amount
        return reply

    def _refunded(self, params: dict[str, object]) -> Charge | None:
        """The charge that a refund names, itself or by its intent."""
        intent = self._ledger.intents.get(str(params.get("payment_intent")))
        return self._ledger.charge(str(params.get("charge") if intent is None else intent.charge_id))

    async def _deliver(
        self, request: web.Request, reply: Reply, replayed: bool, fault: Fault | None
    ) -> web.StreamResponse:
        """The reply, unless a fault strikes after the charge."""
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(self.plan.settings.timeout_ms / 1000)
        elif fault is Fault.DROP_AFTER_CHARGE:
            if request.transport is not None:
                request.transport.abort()
        elif fault is Fault.BAD_BODY:
            return await _cut(request, reply)
        return json_answer(reply.body, reply.status, JSON_REPLAYED if replayed else JSON)


async def _cut(request: web.Request, reply: Reply) -> web.StreamResponse:
    """A 200 that promises more bytes than it sends."""
    response = web.StreamResponse(headers={**JSON, "Content-Length": str(len(reply.body))})
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


_IDS = random.Random()  # noqa: S311 - seeded by the system; an id names a row, it protects nothing


def new_id(prefix: str) -> str:
    """Unique without a system call for each charge."""
    return f"{prefix}_{_IDS.getrandbits(96):024x}"
