"""What HTTP proves about a call: the exceptions of aiohttp mapped to outcomes.

Shared by all adapters, also by Stripe's, whose SDK hands our connection errors through. What neither
proves unsent nor proves done is Ambiguous.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from streamsocial_billing.domain.gateway_calls import Ambiguous, NotSent
from streamsocial_billing.gateways.bodies import ReplyTooLarge
from streamsocial_billing.gateways.kept_lines import NotConnected
from streamsocial_billing.gateways.permits import Permits

CONNECT_SHARE = 0.8
"""Part of the time-out that may pass before the request is sent: waiting longer is proven unsent."""

EXCEPTIONS: tuple[tuple[type[Exception], NotSent | Ambiguous], ...] = (
    # Before a byte of the request is written: proven unsent.
    (aiohttp.ConnectionTimeoutError, NotSent("connect_timeout")),
    (NotConnected, NotSent("unreachable")),
    (aiohttp.ClientConnectorDNSError, NotSent("unreachable")),
    (aiohttp.ClientConnectorError, NotSent("unreachable")),
    (aiohttp.InvalidURL, NotSent("bad_url")),
    # Later, all faults look alike: of five tried, four had charged and one had not.
    (TimeoutError, Ambiguous("timeout")),
    (aiohttp.ClientPayloadError, Ambiguous("cut_body")),
    (aiohttp.ServerDisconnectedError, Ambiguous("reset")),
    (aiohttp.ClientOSError, Ambiguous("reset")),
    (aiohttp.ClientResponseError, Ambiguous("bad_reply")),
    (HttpProcessingError, Ambiguous("bad_reply")),
    (ReplyTooLarge, Ambiguous("bad_reply")),
    (Exception, Ambiguous("internal_error")),
)
"""First match wins, so a class stands before its bases."""


def outcome_of_exception(error: Exception) -> NotSent | Ambiguous:
    """The outcome that `EXCEPTIONS` gives to this error."""
    return next(outcome for kind, outcome in EXCEPTIONS if isinstance(error, kind))


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); its date form and nonsense count as absent."""
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 6:
        return None
    return float(value)


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a reply's body; None where it is none."""
    try:
        reply = orjson.loads(body)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def base_url(url: str) -> URL:
    """The url of a gateway; raises ValueError unless it is http(s)://host[:port][/path]."""
    base = URL(url)
    if base.scheme not in {"http", "https"} or not base.host:
        raise ValueError(f"gateway url {url!r}: http://host:port or https://host:port is allowed")
    return base


def open_session(connections: int) -> aiohttp.ClientSession:
    """A pool of connections without cookies, proxies of the environment or headers of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


def call_timeout(timeout_s: float) -> aiohttp.ClientTimeout:
    """Exactly `timeout_s` for all: aiohttp would round longer ones up to a full second."""
    return aiohttp.ClientTimeout(
        total=timeout_s, connect=timeout_s * CONNECT_SHARE, ceil_threshold=timeout_s + 1
    )


class Pooled:
    """A client with a pool of its own: at most `max_connections` calls in flight, others wait their turn."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._permits = Permits(max_connections)
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def _place(self, timeout_s: float) -> AsyncIterator[float | None]:
        """Hold a permit; gives the seconds left for the call, None if none came free in time.

        aiohttp's own pool lets newcomers overtake, and one payment that waits long holds up the commit of all
        that came after it in its partition.
        """
        began = time.monotonic()
        if not await self._permits.wait(timeout_s * CONNECT_SHARE):
            yield None
            return
        try:
            yield timeout_s - (time.monotonic() - began)
        finally:
            self._permits.leave()

    async def start(self) -> None:
        """Open the connection pool; no connection is made yet, proxies of the environment are not used."""
        self.opened()

    def opened(self) -> aiohttp.ClientSession:
        """The pool, opened if it was not."""
        if self._session is None:
            self._session = open_session(self._max_connections)
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
