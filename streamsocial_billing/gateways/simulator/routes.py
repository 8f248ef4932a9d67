"""The routes of the simulated gateway: lists, searches, faults, counts; what moves money is `posting`'s."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

import orjson
from aiohttp import web

from streamsocial_billing.gateways.simulator.answers import BROKEN, json_answer, refusal_of
from streamsocial_billing.gateways.simulator.callers import no_pages_of_others
from streamsocial_billing.gateways.simulator.customers import Customers
from streamsocial_billing.gateways.simulator.faults import FaultPlan, FaultSettings
from streamsocial_billing.gateways.simulator.ledger import Ledger
from streamsocial_billing.gateways.simulator.ledger_file import LedgerUnusable
from streamsocial_billing.gateways.simulator.posting import Posting
from streamsocial_billing.gateways.simulator.shapes import (
    BadRequest,
    Charge,
    Refund,
    charge_json,
    list_body,
    parse_body,
    refund_json,
)

MAX_BODY_BYTES = 64 * 1024
MAX_PAGE = 1000
MAX_REASON_CHARACTERS = 100


class Page(Protocol):
    """Reads one page of a list; raises KeyError for an unknown `before`."""

    def __call__(self, *, limit: int, before: str | None) -> tuple[Sequence[Charge | Refund], bool]: ...


class Simulator:
    """Handlers of all routes over one open ledger; `names` are hosts by which others call it."""

    def __init__(self, ledger: Ledger, names: Sequence[str] = ()) -> None:
        self._ledger = ledger
        self._names = names
        self._posting = Posting(ledger)
        self._customers = Customers(ledger)

    def application(self) -> web.Application:
        """All routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[no_pages_of_others(self._names)])
        app.router.add_post("/v1/charges", self._posting.charge)
        app.router.add_post("/v1/refunds", self._posting.refund)
        app.router.add_get("/v1/charges", self.list_charges)
        app.router.add_get("/v1/charges/search", self.search_charges)
        app.router.add_get("/v1/charges/{id}", self.get_charge)
        app.router.add_get("/v1/refunds", self.list_refunds)
        app.router.add_get("/v1/refunds/search", self.search_refunds)
        app.router.add_get("/v1/refunds/{id}", self.get_refund)
        app.router.add_post("/_refunds/{id}/fail", self.fail_refund)
        app.router.add_post("/v1/payment_intents", self._posting.intent)
        self._customers.add_to(app.router)
        app.router.add_get("/health", self.get_health)
        app.router.add_get("/_faults", self.get_faults)
        app.router.add_post("/_faults", self.post_faults)
        app.router.add_get("/_stats", self.get_stats)
        return app

    async def list_charges(self, request: web.Request) -> web.Response:
        """Newest first; `limit` 1 to 1000 (10), `starting_after` the last id of the page before."""
        return self._page(request, self._ledger.page)

    async def list_refunds(self, request: web.Request) -> web.Response:
        """Like `list_charges`."""
        return self._page(request, self._ledger.refund_page)

    def _page(self, request: web.Request, page: Page) -> web.Response:
        limit, before = request.query.get("limit", "10"), request.query.get("starting_after")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= MAX_PAGE):
            return refusal_of(BadRequest("parameter_invalid_integer", f"limit: 1 to {MAX_PAGE} is allowed."))
        try:
            rows, has_more = page(limit=int(limit), before=before)
        except KeyError:
            return refusal_of(BadRequest("resource_missing", "starting_after: no such object."))
        return json_answer(list_body(rows, has_more=has_more))

    async def search_charges(self, request: web.Request) -> web.Response:
        """All charges whose `metadata.ref` is the given one, newest first."""
        return _found(request, self._ledger.charges_with_ref)

    async def search_refunds(self, request: web.Request) -> web.Response:
        """All refunds whose `metadata.ref` is the given one, newest first."""
        return _found(request, self._ledger.refunds_with_ref)

    async def get_charge(self, request: web.Request) -> web.Response:
        """One charge by its id."""
        charge = self._ledger.charge(request.match_info["id"])
        if charge is None:
            return refusal_of(BadRequest("resource_missing", "No such charge.", 404))
        return json_answer(orjson.dumps(charge_json(charge)))

    async def get_refund(self, request: web.Request) -> web.Response:
        """One refund by its id."""
        refund = self._ledger.refund(request.match_info["id"])
        if refund is None:
            return refusal_of(BadRequest("resource_missing", "No such refund.", 404))
        return json_answer(orjson.dumps(refund_json(refund)))

    async def fail_refund(self, request: web.Request) -> web.Response:
        """Let a refund fail after it succeeded, as one at Stripe may weeks later; `{"reason": CODE}`."""
        try:
            params = parse_body(await request.read() or b"{}", "application/json")
            reason = str(params.get("reason") or "lost_or_stolen_card")[:MAX_REASON_CHARACTERS]
            refund = await self._ledger.fail_refund(request.match_info["id"], reason)
        except BadRequest as error:
            return refusal_of(error)
        except KeyError:
            return refusal_of(BadRequest("resource_missing", "No such refund.", 404))
        except (sqlite3.Error, LedgerUnusable):
            return json_answer(BROKEN, 500)
        return json_answer(orjson.dumps(refund_json(refund)))

    async def get_health(self, request: web.Request) -> web.Response:
        """200 while the server answers."""
        return json_answer(b'{"status":"ok"}')

    async def get_faults(self, request: web.Request) -> web.Response:
        """The fault settings in force."""
        return json_answer(orjson.dumps(asdict(self._posting.plan.settings)))

    async def post_faults(self, request: web.Request) -> web.Response:
        """Replace the whole fault plan; `{}` ends all faults."""
        try:
            settings = FaultSettings.from_mapping(parse_body(await request.read(), "application/json"))
        except BadRequest as error:
            return refusal_of(error)
        except ValueError as error:
            return refusal_of(BadRequest("parameter_invalid", str(error)))
        self._posting.plan = FaultPlan(settings)
        return await self.get_faults(request)

    async def get_stats(self, request: web.Request) -> web.Response:
        """Counts since the ledger began, replays and faults since the start; `?key=` gives its POSTs."""
        ledger, key = self._ledger, request.query.get("key")
        if key is not None:
            return json_answer(orjson.dumps({"key": key, "calls": ledger.calls.get(key, 0)}))
        stats = {
            **_totals(ledger.charges),
            "keys": len(ledger.calls),
            "calls": sum(ledger.calls.values()),
            "most_calls_of_a_key": max(ledger.calls.values(), default=0),
            "replays": self._posting.replays,
            "faults": dict(self._posting.drawn),
        }
        return json_answer(orjson.dumps(stats))


def _found(request: web.Request, find: Callable[[str], Sequence[Charge | Refund]]) -> web.Response:
    ref = request.query.get("ref")
    if not ref:
        return refusal_of(BadRequest("parameter_missing", "ref: a text is required."))
    return json_answer(list_body(find(ref), has_more=False))


def _totals(charges: list[Charge]) -> dict[str, object]:
    """Counts by status, minor units charged and refunded per currency."""
    statuses = Counter(charge.status for charge in charges)
    charged: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    for charge in charges:
        if charge.status == "succeeded":
            charged[charge.currency] += charge.amount
            refunded[charge.currency] += charge.refunded
    return {
        "charges": len(charges),
        "succeeded": statuses["succeeded"],
        "failed": statuses["failed"],
        "charged_minor": dict(charged),
        "refunded_minor": dict(refunded),
    }
