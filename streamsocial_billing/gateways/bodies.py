"""Bodies of a gateway's replies, read within bounds."""

from __future__ import annotations

from typing import Final

from aiohttp import StreamReader

MAX_REPLY_BYTES: Final = 256 * 1024
"""Of a reply to a call that moves money: a charge or an order is a few KiB."""
MAX_PAGE_BYTES: Final = 16 * 1024 * 1024
"""Of what is only asked for: a page of a list has up to 1000 rows."""


class ReplyTooLarge(Exception):
    """Raised for a body over its bound: it was not read to its end, so what it says is not known."""


async def read_reply(content: StreamReader, most: int) -> bytes:
    """The body; raises ReplyTooLarge as soon as more than `most` bytes are there."""
    if content.is_eof() and content.exception() is None:  # it came with its head
        body = content.read_nowait()
    else:
        read = bytearray()
        async for part in content.iter_any():
            read += part
            if len(read) > most:
                break
        body = bytes(read)
    if len(body) > most:
        raise ReplyTooLarge(f"a reply of more than {most} bytes")
    return body
