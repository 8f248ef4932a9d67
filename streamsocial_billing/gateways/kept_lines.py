"""POSTs over connections that are kept: what a general client does for each call is done once.

A call through aiohttp's session costs more CPU than all else that a charge is. Connection and parser are
aiohttp's here, too, and so are the errors: `http.EXCEPTIONS` says what they prove.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from streamsocial_billing.deadlines import Deadlines
from streamsocial_billing.gateways.bodies import MAX_REPLY_BYTES, read_reply

KEPT_S: Final = 60.0
"""How long a connection is kept that nobody needs."""


class NotConnected(Exception):
    """Raised when there is no connection: nothing was sent."""


class Reply(NamedTuple):
    """A reply that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Line(ResponseHandler):
    """A connection: one call at a time."""

    kept_until: float = 0.0

    def usable(self) -> bool:
        """True if a call may be written to it."""
        return self.is_connected() and not self.should_close


class _Call:
    """A call under way; at its time its connection ends, and with it the wait for a reply."""

    __slots__ = ("is_late", "line", "over")

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.over = False
        self.is_late = False

    def done(self) -> bool:
        return self.over

    def late(self) -> None:
        self.is_late = True
        transport = self.line.transport
        if transport is not None:
            transport.abort()  # not `line.abort()`: who reads a body would not be woken


class KeptLines:
    """Connections to where `url` leads; whoever calls bounds how many there are at once."""

    def __init__(self, url: URL) -> None:
        assert url.host is not None and url.port is not None  # noqa: S101, PT018 - `http.base_url` saw to it
        self._address = url.host, url.port
        self._tls = True if url.scheme == "https" else None
        fixed = f"Host: {url.host_port_subcomponent}\r\nContent-Type: application/json\r\n"
        if url.user is not None:
            given = b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
            fixed += f"Authorization: Basic {given}\r\n"
        self._fixed = fixed
        self._free: deque[_Line] = deque()
        self._used: set[_Line] = set()
        self._deadlines = Deadlines()

    async def post(self, path: str, key: str, body: bytes, *, timeout_s: float, connect_s: float) -> Reply:
        """POST this JSON under this Idempotency-Key; over in `timeout_s` seconds.

        Raises NotConnected, ConnectionTimeoutError: nothing was sent. TimeoutError, aiohttp.ClientError,
        HttpProcessingError, ReplyTooLarge: it may have been.
        """
        if not (key.isascii() and key.isprintable()):
            raise ValueError("an Idempotency-Key is printable ASCII")
        head = f"POST {path} HTTP/1.1\r\n{self._fixed}Idempotency-Key: {key}\r\n"
        began = time.monotonic()
        line = self._kept(began)
        if line is None:
            line = await self._connected(connect_s)
            timeout_s -= time.monotonic() - began
        call = _Call(line)
        self._deadlines.add(call, timeout_s)
        self._used.add(line)
        try:
            reply = await _exchange(line, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        except aiohttp.ClientError:
            if not call.is_late:
                raise
        else:
            if not call.is_late:  # else a body without a length was cut by us
                return reply
        finally:
            call.over = True
            self._used.discard(line)
            if line.usable():
                line.kept_until = began + KEPT_S
                self._free.append(line)
            else:
                line.close()
        raise TimeoutError

    def close(self) -> None:
        """Close all; a call under way fails as if the other side had done that."""
        for line in (*self._free, *self._used):
            if line.transport is not None:
                line.transport.abort()
        self._free.clear()

    def _kept(self, now: float) -> _Line | None:
        """The connection that was used last; those that nobody needed for long are closed."""
        free = self._free
        while free and (free[0].kept_until < now or not free[0].usable()):
            free.popleft().close()
        while free:
            line = free.pop()
            if line.usable():
                return line
            line.close()
        return None

    async def _connected(self, within_s: float) -> _Line:
        loop = asyncio.get_running_loop()
        host, port = self._address
        try:
            async with asyncio.timeout(within_s):
                _, line = await loop.create_connection(lambda: _Line(loop), host, port, ssl=self._tls)
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError(f"no connection within {within_s:g} s") from None
        except OSError as error:
            raise NotConnected(str(error)) from error
        line.set_response_params(read_until_eof=True, auto_decompress=False)
        return line


async def _exchange(line: _Line, request: bytes) -> Reply:
    """Write the request, read its reply to the end; the line is unusable unless that went well."""
    transport = line.transport
    assert transport is not None  # noqa: S101 - it is usable
    read = False
    try:
        transport.write(request)
        message, payload = await line.read()
        while 100 <= message.code < 200:  # a reply comes after it
            message, payload = await line.read()
        body = await read_reply(payload, MAX_REPLY_BYTES)
        read = True
    finally:
        if not read:
            line.abort()
    return Reply(message.code, message.headers, body)
