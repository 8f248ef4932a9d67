"""How a request of Stripe's SDK is carried: over our own pool, within the seconds that its call has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
import stripe

from streamsocial_billing.gateways.bodies import MAX_PAGE_BYTES, MAX_REPLY_BYTES, read_reply
from streamsocial_billing.gateways.http import call_timeout

PAGE_TIMEOUT_S = 30.0

_timeout_s: ContextVar[float] = ContextVar("timeout_s", default=PAGE_TIMEOUT_S)


@contextmanager
def within(timeout_s: float) -> Iterator[None]:
    """A request of the SDK in this `with` is over in so many seconds; outside of one, in PAGE_TIMEOUT_S."""
    before = _timeout_s.set(timeout_s)
    try:
        yield
    finally:
        _timeout_s.reset(before)


class Transport(stripe.HTTPClient):
    """Carries one request over the pool that `opened` gives; the pool is its owner's to close."""

    name = "aiohttp"

    def __init__(self, opened: Callable[[], aiohttp.ClientSession]) -> None:
        super().__init__()
        self._opened = opened

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One request, its body unless that is too long; raises APIConnectionError from what was raised."""
        session = self._opened()
        try:
            async with session.request(
                method, url, headers=headers, data=post_data, timeout=call_timeout(_timeout_s.get()),
                allow_redirects=False,
            ) as response:  # fmt: skip
                most = MAX_PAGE_BYTES if method.lower() == "get" else MAX_REPLY_BYTES
                return await read_reply(response.content, most), response.status, response.headers
        except Exception as error:
            raise _not_connected(type(error).__name__) from error


def _not_connected(why: str) -> stripe.APIConnectionError:
    return stripe.APIConnectionError(why)  # type: ignore[no-untyped-call]
