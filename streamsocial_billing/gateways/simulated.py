"""Client of the simulated gateway.

Foreign exceptions stop here: `EXCEPTIONS` is the one table that maps them, `STATUSES` the one that maps
replies. What neither proves unsent nor proves done is Ambiguous.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import aiohttp
import orjson
from yarl import URL

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

_CONNECT_SHARE = 0.8
"""Part of the time-out that may pass before the request is sent: waiting longer is proven unsent."""

EXCEPTIONS: tuple[tuple[type[Exception], Outcome], ...] = (
    # Before a byte of the request is written: proven unsent.
    (aiohttp.ConnectionTimeoutError, NotSent("connect_timeout")),
    (aiohttp.ClientConnectorDNSError, NotSent("unreachable")),
    (aiohttp.ClientConnectorError, NotSent("unreachable")),
    (aiohttp.InvalidURL, NotSent("bad_url")),
    # Later, all faults look alike: of five tried, four had charged and one had not.
    (TimeoutError, Ambiguous("timeout")),
    (aiohttp.ClientPayloadError, Ambiguous("cut_body")),
    (aiohttp.ServerDisconnectedError, Ambiguous("reset")),
    (aiohttp.ClientOSError, Ambiguous("reset")),
    (aiohttp.ClientResponseError, Ambiguous("bad_reply")),
    (Exception, Ambiguous("internal_error")),
)
"""First match wins, so a class stands before its bases."""


class SimulatedGateway:
    """The gateway at `url`; `max_connections` bounds the calls in flight, further ones wait their turn.

    Raises ValueError for a url that is not http(s)://host[:port].
    """

    name = "simulated"
    account = "acct_simulated"

    def __init__(self, url: str, max_connections: int = 500) -> None:
        base = URL(url)
        if base.scheme not in {"http", "https"} or not base.host:
            raise ValueError(f"gateway url {url!r}: http://host:port or https://host:port is allowed")
        self._charges_url = base / "v1" / "charges"
        self._max_connections = max_connections
        self._places = asyncio.Semaphore(max_connections)
        self._session: aiohttp.ClientSession | None = None

    def __str__(self) -> str:
        """What a log line calls it."""
        return f"gateway {self.name} at {self._charges_url.origin()}"

    async def start(self) -> None:
        """Open the connection pool; no connection is made yet, proxies of the environment are not used."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            )

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """POST the charge once; see `Gateway.charge`.

        Calls above the bound wait in order of their arrival: aiohttp's own pool lets newcomers overtake, and
        one payment that waits long holds up the commit of all that came after it in its partition.
        """
        ends = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s * _CONNECT_SHARE):
                await self._places.acquire()
        except TimeoutError:
            return NotSent("no_free_connection")
        try:
            return await self._post(request, ends - time.monotonic())
        finally:
            self._places.release()

    async def _post(self, request: ChargeRequest, timeout_s: float) -> Outcome:
        if self._session is None:
            return NotSent("not_started")
        try:
            async with self._session.post(
                self._charges_url,
                data=_charge_body(request),
                headers={"Idempotency-Key": request.idempotency_key, "Content-Type": "application/json"},
                timeout=_timeout(timeout_s),
                allow_redirects=False,
            ) as response:
                return outcome_of_reply(request, response.status, response.headers, await response.read())
        except Exception as error:
            return outcome_of_exception(error)


def outcome_of_exception(error: Exception) -> Outcome:
    """The outcome that `EXCEPTIONS` gives to this error."""
    return next(outcome for kind, outcome in EXCEPTIONS if isinstance(error, kind))


def outcome_of_reply(request: ChargeRequest, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """The outcome of a reply that was read to its end: by status, and only if the body bears it out."""
    if status == 429:
        return NotSent("rate_limited", retry_after_s(headers.get("Retry-After")))
    if status >= 500:
        return Ambiguous(f"http_{status}")
    judge = STATUSES.get(status, Ambiguous("bad_reply"))
    if isinstance(judge, NotSent | Ambiguous):
        return judge
    try:
        reply = orjson.loads(body)
    except ValueError:
        return Ambiguous("bad_reply")
    return judge(request, reply) if isinstance(reply, dict) else Ambiguous("bad_reply")


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); its date form and nonsense count as absent."""
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 6:
        return None
    return float(value)


def _succeeded(request: ChargeRequest, reply: dict[str, object]) -> Outcome:
    """A 200 counts only if the body says so of our amount in our currency."""
    ref, currency, amount = reply.get("id"), reply.get("currency"), reply.get("amount")
    if (
        reply.get("status") == "succeeded"
        and isinstance(ref, str)
        and ref
        and isinstance(currency, str)
        and currency.upper() == request.currency.upper()
        and type(amount) is int
        and amount == request.amount_minor
    ):
        return Succeeded(ref)
    return Ambiguous("bad_reply")


def _declined(_request: ChargeRequest, reply: dict[str, object]) -> Outcome:
    error = _error(reply)
    reason = error.get("decline_code") or error.get("code")
    ref = error.get("charge")
    if error.get("type") != "card_error" or not isinstance(reason, str):
        return Ambiguous("bad_reply")
    return Declined(reason, ref if isinstance(ref, str) else None)


def _refused(_request: ChargeRequest, reply: dict[str, object]) -> Outcome:
    """A 400 or 404 without the gateway's error shape came from something else on the way."""
    error = _error(reply)
    if "idempotency_error" in (error.get("code"), error.get("type")):
        return KeyMismatch("idempotency_error")
    reason = error.get("code") or error.get("type")
    return Invalid(reason) if isinstance(reason, str) else Ambiguous("bad_reply")


def _error(reply: dict[str, object]) -> dict[str, object]:
    error = reply.get("error")
    return error if isinstance(error, dict) else {}


STATUSES: dict[int, NotSent | Ambiguous | Callable[[ChargeRequest, dict[str, object]], Outcome]] = {
    200: _succeeded,
    400: _refused,
    401: NotSent("auth"),
    402: _declined,
    403: NotSent("auth"),
    404: _refused,
    409: Ambiguous("in_flight"),
}
"""Beside these: 429 NotSent with the gateway's wish, 5xx Ambiguous, everything else Ambiguous."""


def _charge_body(request: ChargeRequest) -> bytes:
    return orjson.dumps(
        {
            "amount": request.amount_minor,
            "currency": request.currency,
            "payment_method": request.payment_method,
            "metadata": {
                "ref": request.idempotency_key,
                "payment_id": request.payment_id,
                "user_id": request.user_id,
                "fingerprint": request.fingerprint,
            },
        }
    )


def _timeout(timeout_s: float) -> aiohttp.ClientTimeout:
    """Exactly `timeout_s` for all: aiohttp would round longer ones up to a full second."""
    return aiohttp.ClientTimeout(
        total=timeout_s, connect=timeout_s * _CONNECT_SHARE, ceil_threshold=timeout_s + 1
    )
