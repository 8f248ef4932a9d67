"""Intents at the simulated gateway: read, canceled, and what their customers do, with a page for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from html import escape
from typing import Final

import orjson
from aiohttp import web

from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.simulator.answers import BROKEN, json_answer, refusal_of
from streamsocial_billing.gateways.simulator.answers import PAGE as PAGE_HEADERS
from streamsocial_billing.gateways.simulator.intents import (
    OPEN,
    Intent,
    canceled,
    failed,
    intent_json,
    intents_body,
    paid,
)
from streamsocial_billing.gateways.simulator.ledger import Change, Ledger
from streamsocial_billing.gateways.simulator.ledger_file import LedgerUnusable
from streamsocial_billing.gateways.simulator.posting import new_id
from streamsocial_billing.gateways.simulator.shapes import BadRequest, parse_body

MAX_REASON_CHARACTERS: Final = 100
NONE: Final = BadRequest("resource_missing", "No such payment_intent.", 404)
PAGE: Final = "/_intents"


class Customers:
    """Handlers over one open ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Their routes."""
        router.add_get("/v1/payment_intents", self.list_intents)
        router.add_get("/v1/payment_intents/search", self.search_intents)
        router.add_get("/v1/payment_intents/{id}", self.get_intent)
        router.add_post("/v1/payment_intents/{id}/cancel", self.cancel_intent)
        router.add_get(PAGE, self.page)
        router.add_post(f"{PAGE}/{{id}}/confirm", self.confirm)
        router.add_post(f"{PAGE}/{{id}}/fail", self.fail)

    async def list_intents(self, request: web.Request) -> web.Response:
        """All intents, newest first; charges have pages, these are few."""
        return json_answer(intents_body([*self._ledger.intents.values()][::-1]))

    async def search_intents(self, request: web.Request) -> web.Response:
        """All intents whose `metadata.ref` is the given one."""
        ref = request.query.get("ref")
        return json_answer(intents_body([one for one in self._ledger.intents.values() if one.ref == ref]))

    async def get_intent(self, request: web.Request) -> web.Response:
        """One intent by its id."""
        intent = self._ledger.intents.get(request.match_info["id"])
        return refusal_of(NONE) if intent is None else json_answer(orjson.dumps(intent_json(intent)))

    async def cancel_intent(self, request: web.Request) -> web.Response:
        """Cancel what waits for its customer; what has come to its end is refused, with the intent inside."""
        return await self._change(request, canceled)

    async def confirm(self, request: web.Request) -> web.Response:
        """The customer is back and proves who they are, or what was processed has arrived: it succeeds."""
        return await self._change(
            request, lambda intent: paid(intent, charge_id=new_id("ch"), now_ms=now_ms())
        )

    async def fail(self, request: web.Request) -> web.Response:
        """The customer fails to, or what was processed does not arrive; `{"reason": CODE}`."""
        reason = None
        if request.content_type == "application/json":
            try:
                said = parse_body(await request.read() or b"{}", "application/json").get("reason")
            except BadRequest as error:
                return refusal_of(error)
            reason = str(said)[:MAX_REASON_CHARACTERS] if said else None
        return await self._change(request, lambda intent: failed(intent, reason))

    async def page(self, request: web.Request) -> web.Response:
        """For people: the intents that are open, each with its two ends."""
        rows = "".join(_row(one) for one in self._ledger.intents.values() if one.status in OPEN)
        body = rows or "<p>Nobody is asked for."
        text = f"<!doctype html><title>Customers</title>{body}"
        return web.Response(text=text, content_type="text/html", headers=PAGE_HEADERS)

    async def _change(self, request: web.Request, change: Callable[[Intent], Change]) -> web.Response:
        try:
            intent = await self._ledger.change_intent(request.match_info["id"], change)
        except KeyError:
            return refusal_of(NONE)
        except BadRequest as error:
            return refusal_of(error)
        except (sqlite3.Error, LedgerUnusable):
            return json_answer(BROKEN, 500)
        if "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPSeeOther(PAGE)
        return json_answer(orjson.dumps(intent_json(intent)))


def _row(intent: Intent) -> str:
    what = f"{intent.user_id} {intent.payment_id}: {intent.amount} {intent.currency}, {intent.status}"
    buttons = "".join(
        f'<button formaction="{PAGE}/{intent.id}/{name}">{name}</button>' for name in ("confirm", "fail")
    )
    return f"<form method=post><p>{escape(what)} {buttons}</form>"
