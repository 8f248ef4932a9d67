"""The HTTP server of the simulated gateway.

A POST is answered only after the SQLite transaction of its charge is committed. Same key with the same
parameters: the stored reply with `Idempotent-Replayed: true`; with others: 400 `idempotency_error`; while
the first is under way: 409. Errors of validation are not stored, as at Stripe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import orjson
from aiohttp import web

from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.simulator.faults import Fault, FaultPlan, FaultSettings
from streamsocial_billing.gateways.simulator.ledger import Entry, Ledger, LedgerUnusable
from streamsocial_billing.gateways.simulator.shapes import (
    BadRequest,
    Charge,
    Refund,
    Reply,
    amount_of,
    charge_json,
    charge_reply,
    error_body,
    list_body,
    new_charge,
    new_refund,
    params_hash,
    parse_body,
    refund_json,
    refund_reply,
)
from streamsocial_billing.logs.setup import set_up

logger = logging.getLogger("streamsocial_billing.gateways.simulator")

MAX_BODY_BYTES = 64 * 1024
MAX_KEY_CHARACTERS = 255
MAX_PAGE = 1000
MAX_REASON_CHARACTERS = 100
STOP_WITHIN_S = 0.5
"""How long replies under way may take to end after SIGTERM; held ones are dropped then."""

_JSON = {"Content-Type": "application/json"}
_JSON_REPLAYED = {**_JSON, "Idempotent-Replayed": "true"}
_BUSY = error_body("idempotency_key_in_use", "The first request with this key is under way.", "api_error")
_RATE_LIMITED = error_body("rate_limit", "Too many requests.", "rate_limit_error")
_GONE = error_body("request_cut", "The request did not arrive whole.", "invalid_request_error")
_BROKEN = error_body("api_error", "Something went wrong here; nothing was charged.", "api_error")


class CannotListen(Exception):
    """Raised when the address cannot be listened on."""


class Page(Protocol):
    """Reads one page of a list; raises KeyError for an unknown `before`."""

    def __call__(self, *, limit: int, before: str | None) -> tuple[Sequence[Charge | Refund], bool]: ...


class Simulator:
    """Handlers of all routes over one open ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._faults = FaultPlan(FaultSettings())
        self._under_way: set[str] = set()
        self._refunding: Counter[str] = Counter()
        self._drawn: Counter[str] = Counter()
        self._replays = 0

    def application(self) -> web.Application:
        """All routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/charges", self.post_charge)
        app.router.add_post("/v1/refunds", self.post_refund)
        app.router.add_get("/v1/charges", self.list_charges)
        app.router.add_get("/v1/charges/search", self.search_charges)
        app.router.add_get("/v1/charges/{id}", self.get_charge)
        app.router.add_get("/v1/refunds", self.list_refunds)
        app.router.add_get("/v1/refunds/search", self.search_refunds)
        app.router.add_get("/v1/refunds/{id}", self.get_refund)
        app.router.add_post("/_refunds/{id}/fail", self.fail_refund)
        app.router.add_get("/health", self.get_health)
        app.router.add_get("/_faults", self.get_faults)
        app.router.add_post("/_faults", self.post_faults)
        app.router.add_get("/_stats", self.get_stats)
        return app

    async def post_charge(self, request: web.Request) -> web.StreamResponse:
        """Charge once per idempotency key."""
        return await self._post(request, "charges")

    async def post_refund(self, request: web.Request) -> web.StreamResponse:
        """Give back a part of a charge, or what is left of it, once per idempotency key."""
        return await self._post(request, "refunds")

    async def _post(self, request: web.Request, endpoint: str) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key", "")
        if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isprintable():
            return _bad(BadRequest("parameter_missing", "The header Idempotency-Key is required."))
        self._ledger.count_call(key)
        fault = self._faults.draw()
        if fault is not None:
            self._drawn[fault.value] += 1
        if key in self._under_way:
            return _json(_BUSY, 409)
        self._under_way.add(key)
        try:
            if self._faults.settings.latency_ms:
                await asyncio.sleep(self._faults.settings.latency_ms / 1000)
            refusal = self._refuse(fault)
            if refusal is not None:
                return refusal
            raw = await request.read()
            reply, replayed = await self._reply(endpoint, key, raw, request.content_type)
        except BadRequest as error:
            return _bad(error)
        except ConnectionResetError:
            return _json(_GONE, 400)  # the caller went away before its request was read: nobody hears this
        except (sqlite3.Error, LedgerUnusable):
            return _json(_BROKEN, 500)
        finally:
            self._under_way.discard(key)
        return await self._deliver(request, reply, replayed, fault)

    def _refuse(self, fault: Fault | None) -> web.Response | None:
        """The reply of a fault that strikes before the charge."""
        if fault is Fault.RATE_LIMIT:
            after = str(self._faults.settings.retry_after_s)
            return web.Response(body=_RATE_LIMITED, status=429, headers={**_JSON, "Retry-After": after})
        if fault is Fault.CONFLICT:
            return _json(_BUSY, 409)
        if fault is Fault.ERROR_BEFORE:
            return _json(_BROKEN, 500)
        return None

    async def _reply(self, endpoint: str, key: str, raw: bytes, content_type: str) -> tuple[Reply, bool]:
        """The stored reply of the key (True) or a new one, stored (False)."""
        params = parse_body(raw, content_type)
        hashed = params_hash(endpoint, params)
        stored = self._ledger.replies.get(key)
        if stored is None:
            make = self._charge if endpoint == "charges" else self._refund
            return await make(key, params, hashed), False
        if stored.params_hash != hashed:
            raise BadRequest("idempotency_error", "This key was used with other parameters.")
        self._replays += 1
        return stored, True

    async def _charge(self, key: str, params: dict[str, object], hashed: str) -> Reply:
        charge = new_charge(key, params, charge_id=_new_id("ch"), now_ms=now_ms())
        reply = charge_reply(charge, hashed)
        await self._ledger.record(Entry(charge, reply))
        return reply

    async def _refund(self, key: str, params: dict[str, object], hashed: str) -> Reply:
        charge = self._ledger.charge(str(params.get("charge")))
        if charge is None or charge.status != "succeeded":
            raise BadRequest("resource_missing", "No such succeeded charge.", 404)
        left = charge.amount - charge.refunded - self._refunding[charge.id]
        amount = amount_of(params) if "amount" in params else left
        if amount > left or left == 0:
            raise BadRequest("charge_already_refunded", f"At most {left} of this charge can be refunded.")
        refund = new_refund(key, params, charge, amount, refund_id=_new_id("re"), now_ms=now_ms())
        reply = refund_reply(refund, hashed)
        self._refunding[charge.id] += amount  # reserved: another refund may come before the commit
        try:
            await self._ledger.record(Entry(refund, reply))
        finally:
            self._refunding[charge.id] -= amount
        return reply

    async def _deliver(
        self, request: web.Request, reply: Reply, replayed: bool, fault: Fault | None
    ) -> web.StreamResponse:
        """The reply, unless a fault strikes after the charge."""
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(self._faults.settings.timeout_ms / 1000)
        elif fault is Fault.DROP_AFTER_CHARGE:
            if request.transport is not None:
                request.transport.abort()
        elif fault is Fault.BAD_BODY:
            return await _cut(request, reply)
        return _json(reply.body, reply.status, _JSON_REPLAYED if replayed else _JSON)

    async def list_charges(self, request: web.Request) -> web.Response:
        """Newest first; `limit` 1 to 1000 (10), `starting_after` the last id of the page before."""
        return self._page(request, self._ledger.page)

    async def list_refunds(self, request: web.Request) -> web.Response:
        """Like `list_charges`."""
        return self._page(request, self._ledger.refund_page)

    def _page(self, request: web.Request, page: Page) -> web.Response:
        limit, before = request.query.get("limit", "10"), request.query.get("starting_after")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= MAX_PAGE):
            return _bad(BadRequest("parameter_invalid_integer", f"limit: 1 to {MAX_PAGE} is allowed."))
        try:
            rows, has_more = page(limit=int(limit), before=before)
        except KeyError:
            return _bad(BadRequest("resource_missing", "starting_after: no such object."))
        return _json(list_body(rows, has_more=has_more))

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
            return _bad(BadRequest("resource_missing", "No such charge.", 404))
        return _json(orjson.dumps(charge_json(charge)))

    async def get_refund(self, request: web.Request) -> web.Response:
        """One refund by its id."""
        refund = self._ledger.refund(request.match_info["id"])
        if refund is None:
            return _bad(BadRequest("resource_missing", "No such refund.", 404))
        return _json(orjson.dumps(refund_json(refund)))

    async def fail_refund(self, request: web.Request) -> web.Response:
        """Let a refund fail after it succeeded, as one at Stripe may weeks later; `{"reason": CODE}`."""
        try:
            params = parse_body(await request.read() or b"{}", "application/json")
            reason = str(params.get("reason") or "lost_or_stolen_card")[:MAX_REASON_CHARACTERS]
            refund = await self._ledger.fail_refund(request.match_info["id"], reason)
        except BadRequest as error:
            return _bad(error)
        except KeyError:
            return _bad(BadRequest("resource_missing", "No such refund.", 404))
        except (sqlite3.Error, LedgerUnusable):
            return _json(_BROKEN, 500)
        return _json(orjson.dumps(refund_json(refund)))

    async def get_health(self, request: web.Request) -> web.Response:
        """200 while the server answers."""
        return _json(b'{"status":"ok"}')

    async def get_faults(self, request: web.Request) -> web.Response:
        """The fault settings in force."""
        return _json(orjson.dumps(asdict(self._faults.settings)))

    async def post_faults(self, request: web.Request) -> web.Response:
        """Replace the whole fault plan; `{}` ends all faults."""
        try:
            settings = FaultSettings.from_mapping(parse_body(await request.read(), "application/json"))
        except BadRequest as error:
            return _bad(error)
        except ValueError as error:
            return _bad(BadRequest("parameter_invalid", str(error)))
        self._faults = FaultPlan(settings)
        return await self.get_faults(request)

    async def get_stats(self, request: web.Request) -> web.Response:
        """Counts since the ledger began, replays and faults since the start; `?key=` gives its POSTs."""
        ledger, key = self._ledger, request.query.get("key")
        if key is not None:
            return _json(orjson.dumps({"key": key, "calls": ledger.calls.get(key, 0)}))
        stats = {
            **_totals(ledger.charges),
            "keys": len(ledger.calls),
            "calls": sum(ledger.calls.values()),
            "most_calls_of_a_key": max(ledger.calls.values(), default=0),
            "replays": self._replays,
            "faults": dict(self._drawn),
        }
        return _json(orjson.dumps(stats))


def _found(request: web.Request, find: Callable[[str], Sequence[Charge | Refund]]) -> web.Response:
    ref = request.query.get("ref")
    if not ref:
        return _bad(BadRequest("parameter_missing", "ref: a text is required."))
    return _json(list_body(find(ref), has_more=False))


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


async def _cut(request: web.Request, reply: Reply) -> web.StreamResponse:
    """A 200 that promises more bytes than it sends."""
    response = web.StreamResponse(headers={**_JSON, "Content-Length": str(len(reply.body))})
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _json(body: bytes, status: int = 200, headers: dict[str, str] = _JSON) -> web.Response:
    return web.Response(body=body, status=status, headers=headers)


def _bad(error: BadRequest) -> web.Response:
    return _json(error.body, error.status)


_IDS = random.Random()  # noqa: S311 - seeded by the system; an id names a row, it protects nothing


def _new_id(prefix: str) -> str:
    """Unique without a system call for each charge."""
    return f"{prefix}_{_IDS.getrandbits(96):024x}"


async def serve(host: str, port: int, ledger: Path) -> None:
    """Serve until SIGTERM or SIGINT; says its address in the log once it listens (port 0: a free one).

    Raises LedgerUnusable or CannotListen.
    """
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    books = Ledger(ledger)
    await books.open()
    runner = web.AppRunner(
        Simulator(books).application(), access_log=None, shutdown_timeout=STOP_WITHIN_S, keepalive_timeout=75
    )
    try:
        await runner.setup()
        await _listen(runner, host, port)
        address = runner.addresses[0]
        logger.info("listening at http://%s:%d ledger %s", host, address[1], ledger)
        await stop.wait()
        logger.info("stopped: asked by a signal")
    finally:
        await runner.cleanup()
        await books.close()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except (OSError, OverflowError) as error:
        errno = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(errno) if errno and errno > 0 else str(error)
        raise CannotListen(f"cannot listen on {host}:{port}: {reason}; choose another --port") from error


def run(host: str, port: int, ledger: str | Path, log_format: str = "text") -> int:
    """Serve until told to stop; returns the exit code, after one line on stderr where it is not 0.

    The log goes to stdout, which has nothing else.
    """
    set_up(form=log_format, stream=sys.stdout)
    try:
        asyncio.run(serve(host, port, Path(ledger)))
    except (LedgerUnusable, CannotListen) as error:
        print(f"gateway simulator: {error}", file=sys.stderr)
        return 1
    return 0
