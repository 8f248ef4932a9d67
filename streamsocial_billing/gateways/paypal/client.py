"""Client of PayPal's REST API: orders, captures, refunds.

A charge is an order over a vaulted payment token (`source.py`), captured under the same PayPal-Request-Id;
`invoice_id` carries our reference. Foreign exceptions stop at `http.EXCEPTIONS`, replies are judged by
`replies`. What it knows under our reference comes from the transaction search alone, which lags by up to
three hours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

import aiohttp
import orjson

from streamsocial_billing.domain.gateway_calls import (
    PENDING,
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Found,
    Invalid,
    Movement,
    NotSent,
    Outcome,
    Owner,
    Query,
    RefundRequest,
    Traits,
)
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import MIN_TRY_S, ListFailed
from streamsocial_billing.gateways.bodies import MAX_PAGE_BYTES, MAX_REPLY_BYTES, ReplyTooLarge, read_reply
from streamsocial_billing.gateways.http import (
    Pooled,
    base_url,
    call_timeout,
    json_object,
    outcome_of_exception,
)
from streamsocial_billing.gateways.paypal.amounts import decimal_text
from streamsocial_billing.gateways.paypal.own_fields import custom_ids, words_on
from streamsocial_billing.gateways.paypal.replies import Request, answer_of_capture, outcome_of_reply
from streamsocial_billing.gateways.paypal.search import FIRST_OF_QUESTION_S, REACH_S, TooLarge, search
from streamsocial_billing.gateways.paypal.source import sources
from streamsocial_billing.gateways.request_shapes import newest_first

PAGE = 500
PAGE_TIMEOUT_S = 30.0
CLOCK_SKEW_MS = 300_000
TOKEN_MARGIN_S = 60

TRAITS = Traits(
    key_safe_window_s=16_200,  # 3/4 of the 6 h for which orders keep a PayPal-Request-Id
    consistency_delay_s=4 * 3600,  # the transaction search: "up to three hours"
    list_reach_s=REACH_S,
)


class PayPalGateway(Pooled):
    """The merchant of these credentials; raises ValueError for a url that is not http(s)://host[:port]."""

    name = "paypal"
    traits = TRAITS

    def __init__(
        self, client_id: str, client_secret: str, url: str = "https://api-m.paypal.com", *,
        max_connections: int = 500,
    ) -> None:  # fmt: skip
        super().__init__(max_connections)
        self._url = str(base_url(url)).rstrip("/")
        self._login = aiohttp.encode_basic_auth(client_id, client_secret)
        self.account = client_id  # public; each REST app belongs to one merchant
        self._token = ""
        self._token_until = 0.0
        self._asking = asyncio.Lock()

    def __str__(self) -> str:
        """What a log line calls it."""
        return f"gateway {self.name} at {self._url}"

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Create the order, which captures at once; capture it where PayPal left that to us."""
        value = decimal_text(request.amount_minor, request.currency)
        if value is None:
            return Invalid("amount_not_representable")
        ends = time.monotonic() + timeout_s
        orders = _orders(request, value)
        outcome, reply = await self._in_its_shape(request, "/v2/checkout/orders", orders, ends)
        if reply is None or reply.get("status") not in ("CREATED", "APPROVED"):
            return outcome
        path = f"/v2/checkout/orders/{reply['id']}/capture"
        outcome, _ = await self._send(request, path, {}, ends - time.monotonic())
        # the order stands: that its capture was not sent is no proof for the whole
        return Ambiguous(outcome.reason) if isinstance(outcome, NotSent) else outcome

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Give back a part of a capture."""
        value = decimal_text(request.amount_minor, request.currency)
        if value is None:
            return Invalid("amount_not_representable")
        ends, amount = time.monotonic() + timeout_s, _money(value, request.currency)
        bodies = [{"amount": amount, **_ours(request, custom)} for custom in _custom_ids(request)]
        path = f"/v2/payments/captures/{request.charge_ref}/refund"
        return (await self._in_its_shape(request, path, bodies, ends))[0]

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """The capture itself where it is known; else by our reference in the transaction search.

        Absent there means little before its delay is over.
        """
        if query.intent is not None:
            status, reply = await self._ask("GET", f"/v2/payments/captures/{query.intent}", timeout_s)
            if isinstance(status, NotSent | Ambiguous):
                return status
            return answer_of_capture(query, status, reply)
        at_ms = now_ms()
        since_ms = query.since_ms - CLOCK_SKEW_MS
        until_ms = at_ms if query.until_ms is None else min(at_ms, query.until_ms + CLOCK_SKEW_MS)
        try:
            async with asyncio.timeout(timeout_s):
                async for one in search(self._transactions, since_ms, until_ms, at_ms, FIRST_OF_QUESTION_S):
                    if one.ref == query.idempotency_key and one.kind == query.action:
                        return _found(one, query)
        except ListFailed as error:
            return Ambiguous(str(error.__cause__ or error))
        except TimeoutError:
            return Ambiguous("timeout")
        return Absent()

    def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """The transaction search, window by window; three years back at most."""
        return search(self._transactions, since_ms, until_ms, now_ms())

    async def owner_of(self, charge_ref: str, *, timeout_s: float) -> Owner | Absent | NotSent | Ambiguous:
        """Our words on a capture; Absent where there is none, or none of ours."""
        status, reply = await self._ask("GET", f"/v2/payments/captures/{charge_ref}", timeout_s)
        if isinstance(status, NotSent | Ambiguous):
            return status
        if status == 404:
            return Absent()
        if status != 200 or reply is None:
            return Ambiguous(f"http_{status}")
        return words_on(reply) or Absent()

    async def verify_webhook(
        self, webhook_id: str, question: Mapping[str, str], body: bytes, *, timeout_s: float
    ) -> bool | NotSent | Ambiguous:
        """Ask PayPal whether it signed this message: `question` of its headers, `body` one JSON object.

        The body goes back byte for byte: written anew, its signature would be that of something else.
        """
        asked = orjson.dumps({**question, "webhook_id": webhook_id})
        data = asked[:-1] + b',"webhook_event":' + body + b"}"
        path = "/v1/notifications/verify-webhook-signature"
        status, reply = await self._ask("POST", path, timeout_s, data=data)
        if isinstance(status, NotSent | Ambiguous):
            return status
        if status in (400, 422):  # it could not be one of theirs
            return False
        said = reply.get("verification_status") if status == 200 and reply is not None else None
        return said == "SUCCESS" if said in ("SUCCESS", "FAILURE") else Ambiguous(f"http_{status}")

    async def _ask(
        self, method: str, path: str, timeout_s: float, **more: Any
    ) -> tuple[int | NotSent | Ambiguous, dict[str, Any] | None]:
        """One question that moves nothing; over in `timeout_s`, the wait for others' access token too."""
        try:
            async with asyncio.timeout(timeout_s):
                refused = await self._ready(timeout_s)
                if refused is not None:
                    return refused, None
                status, _, reply = await self._call(method, path, timeout_s, **more)
        except Exception as error:
            return outcome_of_exception(error), None
        if status == 401:
            self._token = ""
        return (NotSent("auth") if status in (401, 403) else status), reply

    async def _transactions(self, start: datetime, stop: datetime, page: int) -> dict[str, Any]:
        asked = {
            "start_date": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "end_date": stop.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "fields": "transaction_info", "page_size": str(PAGE), "page": str(page),
        }  # fmt: skip
        try:
            refused = await self._ready(PAGE_TIMEOUT_S)
            if refused is not None:
                raise ListFailed(f"{self}: no access ({refused.reason})")
            path = "/v1/reporting/transactions"
            status, _, reply = await self._call("GET", path, PAGE_TIMEOUT_S, params=asked)
        except (aiohttp.ClientError, ReplyTooLarge, TimeoutError) as error:
            why = outcome_of_exception(error).reason
            raise ListFailed(f"{self}: the transactions could not be listed ({why}); try again") from error
        if status == 400 and "RESULTSET_TOO_LARGE" in str(reply):
            raise TooLarge
        if status != 200 or reply is None:
            raise ListFailed(f"{self}: the transactions could not be listed (HTTP {status}); try again")
        return reply

    async def _in_its_shape(
        self, request: Request, path: str, bodies: list[dict[str, Any]], ends: float
    ) -> tuple[Outcome, dict[str, Any] | None]:
        return await newest_first(
            bodies, lambda body: self._send(request, path, body, max(ends - time.monotonic(), MIN_TRY_S))
        )

    async def _send(
        self, request: Request, path: str, body: dict[str, Any], timeout_s: float
    ) -> tuple[Outcome, dict[str, Any] | None]:
        async with self._place(timeout_s) as left_s:
            if left_s is None:
                return NotSent("no_free_connection"), None
            ends = time.monotonic() + left_s
            refused = await self._ready(left_s)
            if refused is not None:
                return refused, None
            try:
                status, headers, reply = await self._call(
                    "POST", path, max(ends - time.monotonic(), 0.01), data=orjson.dumps(body),
                    headers={"PayPal-Request-Id": request.idempotency_key, "Prefer": "return=representation"},
                )  # fmt: skip
            except Exception as error:
                return outcome_of_exception(error), None
            if status == 401:
                self._token = ""
            return outcome_of_reply(request, status, headers, reply), reply

    async def _ready(self, timeout_s: float) -> NotSent | None:
        """Have an access token; whatever goes wrong here, no payment was sent."""
        await self.start()
        async with self._asking:
            if self._token and time.monotonic() < self._token_until:
                return None
            try:
                status, _, reply = await self._call(
                    "POST", "/v1/oauth2/token", timeout_s / 2, data=b"grant_type=client_credentials",
                    headers={"Content-Type": "application/x-www-form-urlencoded"}, login=True,
                )  # fmt: skip
            except Exception as error:
                return NotSent(f"token_{outcome_of_exception(error).reason}")
            if status != 200 or reply is None or not isinstance(reply.get("access_token"), str):
                return NotSent("auth" if status in (400, 401, 403) else "token_refused")
            self._token = reply["access_token"]
            self._token_until = time.monotonic() + int(reply.get("expires_in", 0)) - TOKEN_MARGIN_S
            return None

    async def _call(
        self, method: str, path: str, timeout_s: float, *, headers: Mapping[str, str] | None = None,
        login: bool = False, **more: Any,
    ) -> tuple[int, Mapping[str, str], dict[str, Any] | None]:  # fmt: skip
        session = self._session
        if session is None:
            raise aiohttp.ClientConnectionError("closed")
        who = self._login if login else f"Bearer {self._token}"
        all_headers = {"Authorization": who, "Content-Type": "application/json", **(headers or {})}
        async with session.request(
            method, self._url + path, headers=all_headers, timeout=call_timeout(timeout_s),
            allow_redirects=False, **more,
        ) as response:  # fmt: skip
            most = MAX_PAGE_BYTES if method == "GET" else MAX_REPLY_BYTES
            return response.status, response.headers, json_object(await read_reply(response.content, most))


def _found(one: Movement, query: Query) -> Found:
    """A row under our reference; a capture that is pending is asked for itself from now on."""
    status = "declined" if one.status == "failed" else one.status
    waits = status == "pending" and query.action == "charge"
    return Found(
        gateway_ref=one.gateway_ref, status=status,
        reason="declined" if status == "declined" else PENDING if waits else None,
        amount_minor=one.amount_minor, currency=one.currency, user_id=one.user_id or query.user_id,
        payment_id=one.payment_id, intent=one.gateway_ref if waits else None,
    )  # fmt: skip


def _money(value: str, currency: str) -> dict[str, str]:
    return {"currency_code": currency, "value": value}


def _custom_ids(request: Request) -> list[str]:
    """`custom_id` in each shape that this request ever had, the newest first."""
    return custom_ids(request.idempotency_key, request.user_id, request.payment_id)


def _ours(request: Request, custom_id: str) -> dict[str, str]:
    """`invoice_id` is our reference; PayPal refuses the same one twice, also after it forgot the key."""
    return {"invoice_id": request.idempotency_key, "custom_id": custom_id}


def _orders(request: ChargeRequest, value: str) -> list[dict[str, Any]]:
    """The order in each shape that it ever had, the newest first: the words changed before the source did."""
    newest, *older = sources(request.payment_method, request.product)
    customs = _custom_ids(request)
    return [
        _order(request, value, customs[0], newest),
        *(_order(request, value, custom, source) for source in older for custom in customs),
    ]


def _order(request: ChargeRequest, value: str, custom_id: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "intent": "CAPTURE",
        "purchase_units": [{"amount": _money(value, request.currency), **_ours(request, custom_id)}],
        "payment_source": source,
    }
