"""The connections of the web port: a cap, time limits, what happens without descriptors."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from streamsocial_billing.web.accepting import BoundedSite
from streamsocial_billing.web.bodies import BodyFailed, read_body
from streamsocial_billing.web.connections import BoundedRunner, Connections, Limits, affordable
from streamsocial_billing.web.probes import probes_first
from streamsocial_billing.web.refusing import in_our_words

WITHIN_S = 20.0
"""Far above what anything here takes, on a busy machine too."""
ANSWER = b"x" * 4_000_000
"""More than the kernel holds of an answer that nobody takes."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Served:
    """A web server of the kind that a worker has, on loopback."""

    port: int
    runner: BoundedRunner
    go: asyncio.Event
    """Requests to /slow are answered from then on."""
    in_hand: asyncio.Semaphore
    """Released by each request to /slow."""
    made: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def connections(self) -> Connections:
        """The server's."""
        assert isinstance(self.runner.server, Connections)
        return self.runner.server

    async def connect(self, sent: bytes = b"") -> Stream:
        """A connection that sends so much."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.made.append(writer)
        writer.write(sent)
        return reader, writer

    async def close_all(self) -> None:
        """Close every connection."""
        for writer in self.made:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def get(self, path: str) -> bytes:
        """The whole answer to a request over a new connection, empty if it was closed without one."""
        reader, _ = await self.connect(head(path, "Connection: close"))
        try:
            async with asyncio.timeout(WITHIN_S):
                return await reader.read()
        except ConnectionError:
            return b""

    async def slow(self, number: int) -> list[Stream]:
        """So many connections, each with a request in hand."""
        made = [await self.connect(head("/slow")) for _ in range(number)]
        async with asyncio.timeout(WITHIN_S):
            for _ in made:
                await self.in_hand.acquire()
        return made


def head(path: str, *more: str, method: str = "GET") -> bytes:
    """The headers of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *more, "", ""]).encode()


async def is_closed(stream: Stream) -> bool:
    """True once the server closed it; what came before is thrown away."""
    async with asyncio.timeout(WITHIN_S):
        try:
            while await stream[0].read(65_536):
                pass
        except ConnectionError:
            return True
    return True


async def becomes(true: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 - nothing says when the server has taken notice
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Served]:
    """The server with these pages: /health, /slow, /body, /large."""
    go, in_hand = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(_: web.Request) -> web.Response:
        in_hand.release()
        await go.wait()
        return web.Response(text="done")

    async def body(request: web.Request) -> web.Response:
        try:
            return web.Response(text=str(len(await read_body(request, 1000) or b"")))
        except BodyFailed as error:
            return web.Response(status=400, text=str(error))

    app = web.Application(middlewares=[in_our_words, probes_first])
    app.router.add_get("/health", answering(b"alive"))
    app.router.add_get("/large", answering(ANSWER))
    app.router.add_get("/slow", slow)
    app.router.add_post("/body", body)
    app.router.add_post("/refused", answering(b"no"))
    runner = BoundedRunner(app, limits, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    taken = socket.create_server(("127.0.0.1", 0))
    await BoundedSite(runner, taken).start()
    served = Served(taken.getsockname()[1], runner, go, in_hand)
    try:
        yield served
    finally:
        go.set()
        await served.close_all()
        await runner.cleanup()


def answering(body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A page."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=body)

    return page


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_headers_that_do_not_come_close_the_connection(sent: bytes) -> None:
    """Silent ones, half of a request line, of the headers."""
    async with serving(Limits(head_s=0.3, look_s=0.05)) as served:
        assert await is_closed(await served.connect(sent))
        assert 0 == len(served.connections)


async def test_dripping_headers_are_no_excuse() -> None:
    """The time runs from the beginning, not from the last byte."""
    async with serving(Limits(head_s=0.3, look_s=0.05)) as served:
        stream = await served.connect(b"GET / HTTP/1.1\r\nX: ")

        async def drip() -> None:
            while True:
                stream[1].write(b"y")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await is_closed(stream)
        dripping.cancel()


async def test_headers_of_a_later_request_have_the_same_time() -> None:
    """From their first byte: between two requests a client may be idle for longer."""
    async with serving(Limits(head_s=0.3, idle_s=60, look_s=0.05)) as served:
        reader, writer = await served.connect(head("/health"))
        assert b"alive" == (await reader.readuntil(b"alive"))[-5:]
        await asyncio.sleep(0.6)
        writer.write(head("/health"))
        assert b"alive" == (await reader.readuntil(b"alive"))[-5:]
        writer.write(b"GET /hea")
        assert await is_closed((reader, writer))


async def test_an_idle_connection_is_closed() -> None:
    """After idle_s without a request."""
    async with serving(Limits(head_s=60, idle_s=0.3, look_s=0.05)) as served:
        stream = await served.connect(head("/health"))
        assert await is_closed(stream)


async def test_a_request_that_is_being_handled_is_not_idle() -> None:
    """However long that takes: its handler has bounds of its own."""
    async with serving(Limits(head_s=0.2, idle_s=0.2, look_s=0.05)) as served:
        (reader, _), *_ = await served.slow(1)
        await asyncio.sleep(0.6)
        served.go.set()
        async with asyncio.timeout(WITHIN_S):
            assert b"done" == (await reader.readuntil(b"done"))[-4:]


async def test_an_answer_that_nobody_takes_ends() -> None:
    """aiohttp would wait for its reader for ever, and closing would wait, too."""
    async with serving(Limits(idle_s=0.3, look_s=0.05)) as served:
        await served.connect(head("/large"))
        await becomes(lambda: len(served.connections) == 1)
        await becomes(lambda: len(served.connections) == 0)


async def test_the_rest_of_a_refused_body_is_not_waited_for_long() -> None:
    """The handler answered without it."""
    async with serving(Limits(linger_s=0.2, idle_s=60, look_s=0.05)) as served:
        stream = await served.connect(head("/refused", "Content-Length: 100", method="POST"))
        assert await is_closed(stream)


async def test_a_full_table_makes_room_for_the_next() -> None:
    """Silent connections, however many, shut nobody out; there are never more than the cap."""
    async with serving(Limits(most=5)) as served:
        silent = [await served.connect() for _ in range(30)]
        for _ in range(3):
            assert (await served.get("/health")).endswith(b"alive")
        assert 5 >= len(served.connections)
        closed = [await is_closed(one) for one in silent[:25]]
        assert [True] * 25 == closed


async def test_who_asked_before_stays_longer_than_who_never_did() -> None:
    """A client's kept connection is not the price of a stranger's silence."""
    async with serving(Limits(most=5)) as served:
        reader, writer = await served.connect(head("/health"))
        await reader.readuntil(b"alive")
        silent = [await served.connect() for _ in range(30)]
        assert await is_closed(silent[0])
        writer.write(head("/health"))
        assert b"alive" == (await reader.readuntil(b"alive"))[-5:]


async def test_a_probe_is_answered_while_every_connection_is_in_use() -> None:
    """Others get 503 with Retry-After, then the connection is closed."""
    async with serving(Limits(most=3, reserve=2)) as served:
        in_use = await served.slow(3)
        silent = [await served.connect() for _ in range(10)]
        assert (await served.get("/health")).endswith(b"alive")
        refused = await served.get("/slow")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b'"error":"busy"' in refused
        assert b"Retry-After: 1" in refused
        assert await is_closed(silent[0])
        served.go.set()
        async with asyncio.timeout(WITHIN_S):
            for reader, _ in in_use:
                assert b"done" == (await reader.readuntil(b"done"))[-4:]


async def test_a_full_table_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Not one for each connection."""
    caplog.set_level(logging.WARNING)
    async with serving(Limits(most=5)) as served:
        for _ in range(50):
            await served.connect()
        assert (await served.get("/health")).endswith(b"alive")
    assert 1 == len(caplog.records)
    assert "BILLING_MAX_CONNECTIONS" in caplog.records[0].getMessage()


@contextmanager
def descriptors(spare: int) -> Iterator[None]:
    """This process may open so many descriptors more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    holes = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest - len(os.listdir("/proc/self/fd")) + 2)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for one in holes:
            os.close(one)


async def test_without_descriptors_nothing_spins_and_who_waits_gives_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line; one that waits is closed for the next; as soon as there are descriptors all is as before."""
    async with serving(Limits(most=1000)) as served:
        kept = [await served.connect() for _ in range(3)]
        await becomes(lambda: len(served.connections) == 3)
        clients = [socket.socket() for _ in range(20)]
        for one in clients:
            one.setblocking(False)
        with descriptors(spare=0):
            for one in clients:
                with pytest.raises(BlockingIOError):
                    one.connect(("127.0.0.1", served.port))
            for stream in kept:
                assert await is_closed(stream)
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    clients.append(socket.socket())
        assert (await served.get("/health")).endswith(b"alive")
        for client in clients:
            client.close()
    (error,) = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert "cannot accept a connection beside its 3 (Too many open files)" in error


async def test_what_is_no_http_is_refused_in_our_words_and_quoted_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """aiohttp quotes it in its answer, and in a traceback."""
    caplog.set_level(logging.INFO)
    async with serving(Limits()) as served:
        reader, _ = await served.connect(b"GET / HTTP/1.1\r\nAuthorization Bearer 5ecret\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), WITHIN_S)
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"application/problem+json" in answer
    assert b"X-Content-Type-Options: nosniff" in answer
    assert b"aiohttp" not in answer
    assert b"5ecret" not in answer
    assert "5ecret" not in caplog.text


def test_the_cap_leaves_half_of_the_descriptors_to_kafka_and_tables() -> None:
    """By the limit that the process has now."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert (128, 100) == (affordable(500), affordable(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
