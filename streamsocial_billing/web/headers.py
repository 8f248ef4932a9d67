"""The headers that every answer has, whoever gives it."""

from typing import Final

from aiohttp.web import BaseRequest, StreamResponse

ALWAYS: Final = {
    "Cache-Control": "no-store",  # payments, users, states: old the moment they are read
    "Content-Security-Policy": (
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "same-origin",  # our paths hold users' ids
    "X-Content-Type-Options": "nosniff",
}
"""Where an answer has none of its own: pages for people have a policy that admits their style and script."""
SERVER: Final = "streamsocial-billing"
"""No version: aiohttp would say its own and Python's."""


async def add_headers(_: BaseRequest, response: StreamResponse) -> None:
    """Just before an answer's headers are sent."""
    for name, value in ALWAYS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = SERVER
