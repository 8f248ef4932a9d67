"""Client of Stripe, through its official SDK.

Charges go to the Charges API: `payment_method` is a `tok_`, `src_`, a saved card as `cus_1/card_1`, or
`cus_1` for that customer's default. Our idempotency key goes along, the SDK's own retries are off. Foreign
exceptions stop at `outcome_of_error`; replies are judged by `stripe_shapes.STATUSES`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
import stripe

from streamsocial_billing.domain.gateway_calls import (
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
from streamsocial_billing.domain.money import CURRENCIES, EXPONENTS
from streamsocial_billing.gateways.base import MIN_TRY_S, ListFailed
from streamsocial_billing.gateways.http import (
    Places,
    base_url,
    call_timeout,
    open_session,
    outcome_of_exception,
)
from streamsocial_billing.gateways.request_shapes import newest_first
from streamsocial_billing.gateways.stripe import shapes as stripe_shapes

logger = logging.getLogger(__name__)

PAGE = 100
PAGE_TIMEOUT_S = 30.0
START_TIMEOUT_S = 1.5  # comes on top of a call's deadline, as long as Stripe has not answered
CLOCK_SKEW_S = 300

_MIN_MAJOR_CENTS = {
    "USD": 50, "AED": 200, "AUD": 50, "BRL": 50, "CAD": 50, "CHF": 50, "CZK": 1500, "DKK": 250, "EUR": 50,
    "GBP": 30, "HKD": 400, "HUF": 17_500, "INR": 50, "JPY": 50, "MXN": 1000, "MYR": 200, "NOK": 300,
    "NZD": 50, "PLN": 200, "RON": 200, "SEK": 300, "SGD": 50, "THB": 1000,
}  # fmt: skip
"""docs.stripe.com/currencies, "Minimum and maximum charge amounts"; minor units. Others: settled there."""
_MAX = dict.fromkeys(CURRENCIES, 99_999_999) | {
    "COP": 9_999_999_999, "HUF": 9_999_999_999, "IDR": 999_999_999_999, "INR": 999_999_999,
    "LBP": 999_999_999_999,
}  # fmt: skip
_WHOLE_MAJOR = frozenset({"ISK", "UGX"})
"""Two digits by Stripe's rule, but they must be 00 ("special cases")."""

TRAITS = Traits(
    key_safe_window_s=64_800,  # 3/4 of the 24 h after which Stripe may prune a key
    consistency_delay_s=60,  # the search lags "under a minute"; the list that confirms an absence does not
    min_minor=_MIN_MAJOR_CENTS,
    max_minor=_MAX,
)

_timeout_s: ContextVar[float] = ContextVar("timeout_s", default=PAGE_TIMEOUT_S)


class _Http(stripe.HTTPClient):
    """Carries one request over our own pool, within the seconds of `_timeout_s`."""

    name = "aiohttp"

    def __init__(self, connections: int) -> None:
        super().__init__()
        self._connections = connections
        self.session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        if self.session is None:
            self.session = open_session(self._connections)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One request, the body read to its end; raises APIConnectionError from what aiohttp raised."""
        self.open()
        session = self.session
        if session is None:
            raise _not_connected("closed")
        try:
            async with session.request(
                method, url, headers=headers, data=post_data, timeout=call_timeout(_timeout_s.get()),
                allow_redirects=False,
            ) as response:  # fmt: skip
                return await response.read(), response.status, response.headers
        except Exception as error:
            raise _not_connected(type(error).__name__) from error

    async def close_async(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            await session.close()


def _not_connected(why: str) -> stripe.APIConnectionError:
    return stripe.APIConnectionError(why)  # type: ignore[no-untyped-call]


class StripeGateway:
    """The account of `api_key`; with `account` given, a key of another account stops every call.

    `kinds` is what `movements` lists, for a server that has not all of it.
    Raises ValueError for a url that is not http(s)://host[:port].
    """

    name = "stripe"
    traits = TRAITS

    def __init__(
        self, api_key: str, url: str = "https://api.stripe.com", *, account: str | None = None,
        max_connections: int = 500, kinds: tuple[str, ...] = ("charge", "refund", "dispute"),
    ) -> None:  # fmt: skip
        self._kinds = kinds
        self._url = str(base_url(url)).rstrip("/")
        self._http = _Http(max_connections)
        self._places = Places(max_connections)
        self._client = stripe.StripeClient(
            api_key, base_addresses={"api": self._url}, http_client=self._http, max_network_retries=0
        )
        self._wanted = account
        self._account = account or ""
        self._asked = False
        self._wrong = False

    def __str__(self) -> str:
        """What a log line calls it."""
        return f"gateway {self.name} at {self._url}"

    @property
    def account(self) -> str:
        """The account of the key; empty, and no call is made, until Stripe or the setting told it."""
        return self._account

    async def start(self) -> None:
        """Learn whose key this is; an unreachable Stripe is asked again at the next call."""
        self._http.open()
        if not self._asked:
            await self._identify(START_TIMEOUT_S)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close_async()

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """POST /v1/charges once; see `Gateway.charge`."""
        return await self._send(request, timeout_s, [{
            "amount": request.amount_minor,
            "currency": request.currency.lower(),
            "metadata": stripe_shapes.metadata_for(request),
            **_source(request.payment_method),
        }], self._client.v1.charges.create_async)  # fmt: skip

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """POST /v1/refunds once; see `Gateway.refund`."""
        return await self._send(request, timeout_s, [{
            "charge": request.charge_ref,
            "amount": request.amount_minor,
            "metadata": stripe_shapes.metadata_for(request),
        }], self._client.v1.refunds.create_async)  # fmt: skip

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """Charges: the search, which may lag, then the list. Refunds: the list of their charge."""
        try:
            async with self._places.one(timeout_s) as left_s:
                if left_s is None:
                    return NotSent("no_free_connection")
                with_timeout = _timeout_s.set(left_s)
                try:
                    return await self._find(query)
                finally:
                    _timeout_s.reset(with_timeout)
        except Exception as error:
            return question_failed(error)

    async def owner_of(self, charge_ref: str, *, timeout_s: float) -> Owner | Absent | NotSent | Ambiguous:
        """Our words on a charge; Absent where there is none, or none of ours."""
        with_timeout = _timeout_s.set(timeout_s)
        try:
            charge = await self._client.v1.charges.retrieve_async(charge_ref)
            said = stripe_shapes.metadata_of(_raw(charge))
        except stripe.StripeError as error:
            return Absent() if error.http_status == 404 else question_failed(error)
        except Exception as error:
            return question_failed(error)
        finally:
            _timeout_s.reset(with_timeout)
        words = [said.get(name) for name in ("user_id", "payment_id", "ref")]
        return Owner(*map(str, words)) if all(words) else Absent()

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """Charges, refunds, then disputes, each newest first."""
        created = {"gte": since_ms // 1000, "lt": -(-until_ms // 1000)}
        for kind in self._kinds:
            more = {"expand": ["data.balance_transaction"]} if kind == "charge" else {}
            try:
                async for row in self._rows(kind, {"created": created, **more}):
                    moved = stripe_shapes.movement_of(kind, row)
                    if moved.status == "unreadable" or since_ms <= moved.created_ms < until_ms:
                        yield moved
            except stripe.StripeError as error:
                why = question_failed(error).reason
                raise ListFailed(f"{self}: {kind}s could not be listed ({why}); try again") from error
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ListFailed(f"{self}: a {kind} cannot be read") from error

    async def _send(
        self, request: ChargeRequest | RefundRequest, timeout_s: float, shapes: list[dict[str, Any]],
        create: Callable[[Any, Any], Awaitable[stripe.StripeObject]],
    ) -> Outcome:  # fmt: skip
        """`shapes`: the parameters in each shape that this request ever had, the newest first."""
        unfit = not_representable(request.amount_minor, request.currency)
        if unfit is not None:
            return unfit
        async with self._places.one(timeout_s) as left_s:
            if left_s is None:
                return NotSent("no_free_connection")
            unknown = await self._whose(left_s)
            if unknown is not None:
                return unknown
            ends = time.monotonic() + left_s

            async def call(params: dict[str, Any]) -> tuple[Outcome, None]:
                with_timeout = _timeout_s.set(max(ends - time.monotonic(), MIN_TRY_S))
                try:
                    made = await create(params, {"idempotency_key": request.idempotency_key})
                    return stripe_shapes.outcome_of_reply(request, 200, {}, _raw(made)), None
                except Exception as error:
                    return outcome_of_error(request, error), None
                finally:
                    _timeout_s.reset(with_timeout)

            return (await newest_first(shapes, call))[0]

    async def _whose(self, timeout_s: float) -> NotSent | None:
        """Why no call may be made; None if the account is known."""
        if not self._account:
            await self._identify(timeout_s / 4)
        if self._wrong:
            return NotSent("wrong_account")
        return None if self._account else NotSent("account_unknown")

    async def _identify(self, timeout_s: float) -> None:
        """Ask Stripe; a key without the right to ask leaves the account of the setting."""
        with_timeout = _timeout_s.set(timeout_s)
        try:
            account = await self._client.v1.accounts.retrieve_current_async()
        except stripe.StripeError as error:
            self._asked = error.http_status is not None
            if not self._account:
                logger.error("%s: its account is not known (%s); set BILLING_STRIPE_ACCOUNT", self,
                             type(error).__name__)  # fmt: skip
            return
        finally:
            _timeout_s.reset(with_timeout)
        self._asked = True
        if self._wanted not in (None, account.id):
            self._wrong = True
            logger.error("%s: the key is of %s, not of %s: no call is made", self, account.id, self._wanted)
        self._account = self._wanted or account.id

    async def _find(self, query: Query) -> Answer:
        key = query.idempotency_key
        if query.action == "charge":
            found = stripe_shapes.answer_of_list(query, await self._search(key))
            if isinstance(found, Found):
                return found
        created = {"gte": query.since_ms // 1000 - CLOCK_SKEW_S}
        if query.until_ms is not None:
            created["lt"] = -(-query.until_ms // 1000) + CLOCK_SKEW_S
        narrowed = {} if query.charge_ref is None else {"charge": query.charge_ref}
        rows = [
            row async for row in self._rows(query.action, {"created": created, **narrowed})
            if stripe_shapes.metadata_of(row).get("ref") == key
        ]  # fmt: skip
        return stripe_shapes.answer_of_list(query, rows)

    async def _search(self, key: str) -> list[dict[str, Any]]:
        """What the search knows; it is not there in every region (India), so a refusal says nothing."""
        try:
            page = await self._client.v1.charges.search_async({"query": f"metadata['ref']:'{key}'"})
        except stripe.InvalidRequestError:
            return []
        rows = _raw(page).get("data")
        return rows if isinstance(rows, list) else []

    async def _rows(self, kind: str, params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Every row, page by page."""
        v1 = self._client.v1
        lists: dict[str, Callable[[Any], Awaitable[stripe.StripeObject]]] = {
            "charge": v1.charges.list_async, "refund": v1.refunds.list_async,
            "dispute": v1.disputes.list_async,
        }  # fmt: skip
        asked = {"limit": PAGE, **params}
        while True:
            page = _raw(await lists[kind](asked))
            rows = page["data"]
            for row in rows:
                yield row
            if not page.get("has_more") or not rows:
                return
            asked = {**asked, "starting_after": rows[-1]["id"]}


def not_representable(amount_minor: int, currency: str) -> Invalid | None:
    """Refuse what Stripe cannot carry: broken ISK and UGX, a third digit of KWD, BHD, ... that is not 0."""
    step = 100 if currency in _WHOLE_MAJOR else 10 if EXPONENTS.get(currency) == 3 else 1
    return Invalid("amount_not_representable") if amount_minor % step else None


def outcome_of_error(request: ChargeRequest | RefundRequest, error: Exception) -> Outcome:
    """The outcome of what the SDK raised: by our connection's error, or by the reply's status and body."""
    if isinstance(error, stripe.APIConnectionError):
        cause = error.__cause__
        return outcome_of_exception(cause) if isinstance(cause, Exception) else NotSent("not_started")
    if not isinstance(error, stripe.StripeError) or error.http_status is None:
        return Ambiguous("internal_error")
    status, body = error.http_status, error.json_body
    if 200 <= status < 300:
        return Ambiguous("cut_body")  # the SDK: APIError "Invalid response body", status 200
    reply = body if isinstance(body, dict) else None
    return stripe_shapes.outcome_of_reply(request, status, error.headers or {}, reply)


def question_failed(error: Exception) -> NotSent | Ambiguous:
    """What a question that failed says: nothing of the payment, whatever the refusal."""
    if isinstance(error, stripe.StripeError) and error.http_status is not None:
        return NotSent("auth") if error.http_status in (401, 403) else Ambiguous(f"http_{error.http_status}")
    cause = error.__cause__ if isinstance(error, stripe.APIConnectionError) else error
    return outcome_of_exception(cause) if isinstance(cause, Exception) else NotSent("not_started")


def _raw(made: stripe.StripeObject) -> dict[str, Any]:
    """The body as it came."""
    response = made.last_response
    data = getattr(response, "data", None)
    if not isinstance(data, dict):
        raise ValueError("a reply without a body")
    return data


def _source(payment_method: str) -> dict[str, str]:
    customer, _, card = payment_method.partition("/")
    if not customer.startswith("cus_"):
        return {"source": payment_method}
    return {"customer": customer, "source": card} if card else {"customer": customer}
