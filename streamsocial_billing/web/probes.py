"""Keeps the last connections for those who watch: probes are answered while all others are in use."""

from typing import Final

from aiohttp.typedefs import Handler
from aiohttp.web import Request, StreamResponse, middleware

from streamsocial_billing.intake.http_replies import later
from streamsocial_billing.web.connections import Connection
from streamsocial_billing.web.responding import respond

PROBES: Final = frozenset({"/health", "/ready", "/metrics"})


@middleware
async def probes_first(request: Request, handler: Handler) -> StreamResponse:
    """Over a connection beyond the cap: an answer for a probe, 503 for everybody else; then it is closed."""
    connection = request.protocol
    if not isinstance(connection, Connection) or not connection.probes_only:
        return await handler(request)
    response: StreamResponse = (
        await handler(request)
        if request.path in PROBES
        else respond(later("busy", "all connections are in use"))
    )
    response.force_close()
    return response
