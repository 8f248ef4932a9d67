"""Who may read user data, or send payments."""

import hmac
from ipaddress import ip_address
from typing import Any

FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via")


def may_read(request: Any, token: str | None) -> bool:
    """True for the bearer of the API token; without a token set, for loopback alone.

    A request that came through a proxy is never loopback (interface.md, BILLING_API_TOKEN).
    """
    if token is not None:
        given = request.headers.get("Authorization", "")
        # a header is bytes: aiohttp hands on those that are not UTF-8 as surrogates
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), f"Bearer {token}".encode())
    return _is_loopback(request.remote) and not any(name in request.headers for name in FORWARDING)


def may_write(request: Any, token: str | None) -> bool:
    """The same rule for what sends payments."""
    return may_read(request, token)


def _is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ip_address(remote).is_loopback
    except ValueError:
        return False
