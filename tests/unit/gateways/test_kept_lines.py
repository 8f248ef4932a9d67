"""What a POST over a kept connection comes to, whatever the other side answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from streamsocial_billing.gateways.http import outcome_of_exception
from streamsocial_billing.gateways.kept_lines import KeptLines, NotConnected, Reply

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-One: 1\r\n\r\n{}"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request as the script says; counts connections, keeps what it read."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head + await reader.readexactly(2))
                await self.script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(script: Script, user: str = "") -> AsyncIterator[tuple[Server, KeptLines]]:
    """A server with lines to it."""
    server = Server(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    lines = KeptLines(URL(f"http://{user}127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"))
    try:
        yield server, lines
    finally:
        lines.close()
        listening.close()
        await asyncio.sleep(0.01)


async def post(lines: KeptLines, timeout_s: float = 5.0, key: str = "ss1_a") -> Reply:
    """One call."""
    return await lines.post("/v1/charges", key, b"{}", timeout_s=timeout_s, connect_s=1.0)


def says(*parts: bytes, closes: bool = False) -> Script:
    """A script: these bytes, then the end or nothing."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
        if closes:
            writer.close()

    return script


async def test_a_connection_is_used_again_and_each_call_has_its_reply() -> None:
    """One after the other over one connection, two at once over two."""
    async with served(says(GOOD)) as (server, lines):
        for _ in range(3):
            status, headers, body = await post(lines)
            assert (200, "1", b"{}") == (status, headers["x-one"], body)
        assert 1 == server.connections
        await asyncio.gather(post(lines), post(lines))
        assert 2 == server.connections
        assert server.requests[0].startswith(b"POST /v1/charges HTTP/1.1\r\nHost: 127.0.0.1:")
        assert server.requests[0].endswith(b"Idempotency-Key: ss1_a\r\nContent-Length: 2\r\n\r\n{}")


async def test_a_name_in_the_url_is_sent_as_authorization() -> None:
    """As aiohttp's session does."""
    async with served(says(GOOD), user="me:pw@") as (server, lines):
        await post(lines)
        assert b"\r\nAuthorization: Basic bWU6cHc=\r\n" in server.requests[0]


@pytest.mark.parametrize("parts", [
    (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\n", b"{", b"}"),
    (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"),
])  # fmt: skip
async def test_a_reply_may_come_in_parts(parts: tuple[bytes, ...]) -> None:
    """In any cuts that HTTP allows; the connection stays good."""
    async with served(says(*parts)) as (server, lines):
        for _ in range(2):
            reply = await post(lines)
            assert (200, b"{}") == (reply.status, reply.body)
        assert 1 == server.connections


async def test_a_reply_without_a_length_ends_with_its_connection() -> None:
    """As HTTP/1.0 had it."""
    async with served(says(b"HTTP/1.1 200 OK\r\n\r\n{", b"}", closes=True)) as (server, lines):
        assert [b"{}", b"{}"] == [(await post(lines)).body for _ in range(2)]
        assert 2 == server.connections


@pytest.mark.parametrize(("parts", "closes", "reason"), [
    ((), False, "timeout"),
    ((b"HTTP/1.1 200 OK\r\nContent-Le",), False, "timeout"),
    ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), False, "timeout"),
    ((b"HTTP/1.1 200 OK\r\n\r\n{}",), False, "timeout"),
    ((), True, "reset"),
    ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), True, "cut_body"),
    ((b"no HTTP at all\r\n\r\n",), False, "bad_reply"),
])  # fmt: skip
async def test_what_is_not_a_whole_reply_in_time_leaves_doubt(
    parts: tuple[bytes, ...], closes: bool, reason: str
) -> None:
    """Never a value, within the time, and the next call has a connection of its own."""
    async with served(says(*parts, closes=closes)) as (server, lines):
        began = asyncio.get_running_loop().time()
        with pytest.raises(Exception) as failed:  # noqa: PT011 - which one, the table says
            await asyncio.wait_for(post(lines, 0.2), 60)
        took_s = asyncio.get_running_loop().time() - began
        assert reason == outcome_of_exception(failed.value).reason
        assert reason != "timeout" or took_s >= 0.2
        server.script = says(GOOD)
        assert 200 == (await post(lines)).status
        assert 2 == server.connections


async def test_a_connection_that_the_other_side_closed_meanwhile_is_not_used() -> None:
    """What was written to it would be lost."""
    async with served(says(GOOD)) as (server, lines):
        async def last(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(GOOD)
            await writer.drain()
            writer.close()

        server.script = last
        await post(lines)
        await asyncio.sleep(0.05)
        assert 200 == (await post(lines)).status
        assert 2 == server.connections


async def test_a_cancelled_call_takes_its_connection_with_it() -> None:
    """The reply would be taken for the next call's."""
    async with served(says()) as (server, lines):
        call = asyncio.create_task(post(lines))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.script = says(GOOD)
        assert 200 == (await post(lines)).status
        assert 2 == server.connections


async def test_without_a_server_nothing_was_sent() -> None:
    """A connection that is refused proves it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NotConnected):
        await post(KeptLines(URL(f"http://127.0.0.1:{port}")))


async def test_a_key_cannot_bring_headers_of_its_own() -> None:
    """Nothing is sent then."""
    async with served(says(GOOD)) as (server, lines):
        with pytest.raises(ValueError, match="printable"):
            await post(lines, key="a\r\nX-More: 1")
        assert 0 == server.connections
