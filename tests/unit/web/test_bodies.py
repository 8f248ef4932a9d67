"""Bodies: how fast they have to come, how many are read at once, who gives way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamsocial_billing.intake.webhooks.receiver import Busy
from streamsocial_billing.web.bodies import Bodies, BodyFailed, Pace, read_body, source_of

WITHIN_S = 20.0
QUICK = Pace(grace_s=0.2, bytes_per_s=100, within_s=1.0)
PATIENT = Pace(grace_s=60, within_s=60)
MOST = 100_000


@dataclass
class Reader:
    """A server that reads bodies; what came of each is answered: its length, 400, 503."""

    server: TestServer
    bodies: Bodies
    begun: asyncio.Semaphore
    """Released by each request whose body is about to be read."""
    made: list[asyncio.StreamWriter] = field(default_factory=list)

    async def send(self, sent: bytes, length: int, source: str = "127.0.0.1") -> Sender:
        """A request of which so much of the body is sent."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, local_addr=(source, 0)
        )  # fmt: skip
        self.made.append(writer)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length + sent)
        async with asyncio.timeout(WITHIN_S):
            await self.begun.acquire()
        return Sender(reader, writer)


@dataclass
class Sender:
    """One request on its way."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def status(self) -> int:
        """Of its answer."""
        async with asyncio.timeout(WITHIN_S):
            return int((await self.reader.readline()).split()[1])


@asynccontextmanager
async def reading(**bounds: Any) -> AsyncIterator[Reader]:
    """The server, on loopback."""
    begun = asyncio.Semaphore(0)
    bodies = Bodies(**bounds)

    async def take(request: web.Request) -> web.Response:
        begun.release()
        try:
            return web.Response(text=str(len(await bodies.read(request, MOST) or b"")))
        except BodyFailed as error:
            return web.Response(status=400, text=str(error))
        except Busy:
            return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/", take)
    server = TestServer(app)
    await server.start_server(lingering_time=0)
    reader = Reader(server, bodies, begun)
    try:
        yield reader
    finally:
        for writer in reader.made:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        await server.close()


@pytest.mark.parametrize("sent", [b"", b"x" * 10])
async def test_a_body_that_stops_is_refused_after_the_grace(sent: bytes) -> None:
    """What it promised does not count."""
    async with reading(pace=QUICK) as reader:
        assert 400 == await (await reader.send(sent, 1000)).status()
        assert 0 == len(reader.bodies)


async def test_dripping_is_no_excuse() -> None:
    """A byte now and then is less than the least rate."""
    async with reading(pace=Pace(grace_s=0.2, bytes_per_s=1000, within_s=60)) as reader:
        sender = await reader.send(b"x", 1000)

        async def drip() -> None:
            while True:
                sender.writer.write(b"y")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert 400 == await sender.status()
        dripping.cancel()


async def test_a_slow_body_that_keeps_the_rate_is_taken() -> None:
    """Over a narrow line, within the time for a whole one."""
    async with reading(pace=Pace(grace_s=0.1, bytes_per_s=0.01, within_s=60)) as reader:
        sender = await reader.send(b"x", 10)
        await asyncio.sleep(0.4)
        sender.writer.write(b"y" * 9)
        assert 200 == await sender.status()


async def test_the_whole_time_is_bounded_at_any_rate() -> None:
    """Ten seconds by default."""
    assert 10.0 == Pace().due_s(50_000)
    assert (2.0, 3.0) == (Pace().due_s(0), Pace().due_s(1000))


async def test_one_more_than_can_be_read_costs_the_oldest_of_who_sends_most() -> None:
    """It is 503; whoever sends one is not shut out by who sends many, and does not pay for them."""
    async with reading(most=4, pace=PATIENT) as reader:
        other = await reader.send(b"", 10, "127.0.0.3")
        many = [await reader.send(b"", 10) for _ in range(3)]
        late = await reader.send(b"", 10, "127.0.0.2")
        assert 503 == await many[0].status()
        for sender in (*many[1:], other, late):
            sender.writer.write(b"0123456789")
            assert 200 == await sender.status()
        assert 0 == len(reader.bodies)


async def test_a_body_that_came_at_once_finds_its_way_past_all_others() -> None:
    """It needs no place."""
    async with reading(most=2, pace=PATIENT) as reader:
        held = [await reader.send(b"", 10) for _ in range(2)]
        assert 200 == await (await reader.send(b"0123456789", 10)).status()
        assert 2 == len(reader.bodies)
        for sender in held:
            sender.writer.write(b"0123456789")
            assert 200 == await sender.status()


async def test_one_address_has_only_so_many_slow_ones() -> None:
    """Beyond the grace; another address has its own."""
    pace = Pace(grace_s=0.2, bytes_per_s=0.001, within_s=60)
    async with reading(slow_of_a_source=2, pace=pace) as reader:
        held = [await reader.send(b"x", 10) for _ in range(2)]
        await asyncio.sleep(0.4)
        assert 503 == await (await reader.send(b"x", 10)).status()
        other = await reader.send(b"x", 10, "127.0.0.2")
        await asyncio.sleep(0.4)
        for sender in (*held, other):
            sender.writer.write(b"123456789")
            assert 200 == await sender.status()
        again = await reader.send(b"x", 10)
        await asyncio.sleep(0.4)
        again.writer.write(b"123456789")
        assert 200 == await again.status()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False), ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False), ("::ffff:192.0.2.1", "192.0.2.1", True),
        (None, "no address", False), (None, "", True),
    ],
)  # fmt: skip
def test_a_source_is_an_address_or_a_network_that_one_customer_has(
    one: str | None, other: str, same: bool
) -> None:
    """In IPv6 everybody has 2^64 addresses."""
    assert same == (source_of(one) == source_of(other))


async def test_a_payments_body_has_the_same_pace() -> None:
    """Who may send payments may still have a line that stalls."""
    begun = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        begun.set()
        with pytest.raises(BodyFailed, match="less than 100 bytes a second"):
            await read_body(request, MOST, QUICK)
        return web.Response(status=400)

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        assert isinstance(server, TestServer)
        reader = Reader(server, Bodies(), asyncio.Semaphore(1))
        sender = await reader.send(b"", 10)
        assert 400 == await sender.status()
        sender.writer.transport.abort()
        with suppress(OSError):
            await sender.writer.wait_closed()
