"""Who may read user data, or send payments."""

import hmac
import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from yarl import URL

FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via")


def may_read(request: Any, token: str | None) -> bool:
    """True for the bearer of the API token; without a token set, for loopback alone.

    A request that came through a proxy is never loopback (docs/http.md, "Access"). Nor is one to a
    name in somebody's DNS: a browser on this machine sends it for any page whose name was pointed here.
    """
    if token is not None:
        given = request.headers.get("Authorization", "")
        # a header is bytes: aiohttp hands on those that are not UTF-8 as surrogates
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), f"Bearer {token}".encode())
    forwarded = any(name in request.headers for name in FORWARDING)
    return _is_loopback(request.remote) and not forwarded and _is_own_name(request.host)


def may_write(request: Any, token: str | None) -> bool:
    """The same rule for what sends payments."""
    return may_read(request, token)


@lru_cache(maxsize=1024)
def _is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ip_address(remote).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _is_own_name(host: str) -> bool:
    """True for an address, localhost, this machine's name: what no stranger's DNS answers for."""
    try:
        name = URL(f"http://{host}").host or "."
        return "." not in name or name == socket.gethostname().lower() or bool(ip_address(name))
    except ValueError:
        return False
