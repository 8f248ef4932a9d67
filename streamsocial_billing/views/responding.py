"""Puts a reply into aiohttp's words."""

import orjson
from aiohttp.web import Response

from streamsocial_billing.replies import Reply


def respond(reply: Reply) -> Response:
    """The same status, body, headers."""
    return Response(
        status=reply.status, body=orjson.dumps(reply.body), content_type="application/json",
        headers=dict(reply.headers),
    )  # fmt: skip
