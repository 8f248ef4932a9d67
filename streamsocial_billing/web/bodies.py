"""Bodies that come from outside, read within bounds."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

BODY_WITHIN_S: Final = 10.0


class BodyFailed(Exception):
    """Raised when a request's body did not come whole."""


async def read_body(request: Any, most: int) -> bytes | None:
    """The body, None if it is longer than `most`; raises BodyFailed."""
    if {*request.headers.getall("Content-Encoding", ())} - {"identity"}:
        raise BodyFailed("compressed bodies are not accepted")  # a signature is over the bytes on the wire
    if (request.content_length or 0) > most:
        return None
    read = bytearray()
    content = request.content
    if content.is_eof() and content.exception() is None:  # it came with its head, as small ones do: no timer
        whole: bytes = content.read_nowait(-1)
        return whole if len(whole) <= most else None
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in content.iter_any():
                read += chunk
                if len(read) > most:
                    return None
    except TimeoutError:
        raise BodyFailed(f"the body did not arrive within {BODY_WITHIN_S:g} s") from None
    except (RequestPayloadError, ClientPayloadError, HttpProcessingError, OSError) as error:
        raise BodyFailed(f"the body is damaged ({type(error).__name__})") from None
    return bytes(read)
