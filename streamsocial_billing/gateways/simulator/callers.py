"""Keeps web pages away from the simulated gateway: it has no token, and listens where a browser can reach it.

A browser says where a request comes from; clients that are none say nothing, and are served as ever.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from aiohttp.typedefs import Handler, Middleware
from aiohttp.web import Request, StreamResponse, middleware
from yarl import URL

from streamsocial_billing.gateways.simulator.answers import refusal_of
from streamsocial_billing.gateways.simulator.shapes import BadRequest

OWN_PAGES: Final = ("same-origin", "none")
"""Sec-Fetch-Site of our own pages, and of what a person typed."""
SAFE: Final = ("GET", "HEAD")


def no_pages_of_others(names: Iterable[str]) -> Middleware:
    """Refuse what a page elsewhere makes a browser send; `names` are hosts of this server beside addresses.

    A page whose name was pointed here (DNS rebinding) comes with that name as Host. Every other one comes
    with Origin or Sec-Fetch-Site (Fetch, 3.2; Fetch Metadata, 2.3). A link that a person follows is served:
    it changes nothing, and its page cannot be read or framed from elsewhere.
    """
    known: dict[str, bool] = {}
    own = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    def is_own(host: str) -> bool:
        if host not in known:
            if len(known) >= 256:  # strangers choose what comes
                known.clear()
            known[host] = _is_own(host, own)
        return known[host]

    @middleware
    async def refuse(request: Request, handler: Handler) -> StreamResponse:
        if not is_own(request.host):
            return refusal_of(_refused("Host is not a name of this server; --name adds one."))
        if not _is_from_here(request):
            return refusal_of(_refused("What pages of other sites ask for is refused."))
        return await handler(request)

    return refuse


def _is_own(host: str, own: set[str]) -> bool:
    try:
        name = (URL(f"http://{host}").host or "").lower()
        return name in own or name.endswith(".localhost") or bool(ip_address(name))
    except ValueError:
        return False


def _is_from_here(request: Request) -> bool:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if origin is not None:
        return site in (None, *OWN_PAGES) and origin.lower() == f"{request.scheme}://{request.host}".lower()
    if site is None:
        return True
    is_link = request.headers.get("Sec-Fetch-Dest") == "document" and request.method in SAFE
    return site in OWN_PAGES or is_link


def _refused(why: str) -> BadRequest:
    return BadRequest("not_allowed_from_here", why, 403)
