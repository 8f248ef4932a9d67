"""A TCP proxy between a worker and the broker that cuts, half-opens, delays; EndTxn alone where asked.

Each direction of a connection is a queue: bytes wait there for their time, so a request that the proxy holds
still reaches the broker after its client has gone. That is how a late EndTxn comes about (Jepsen, Bufstream).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeVar

T = TypeVar("T")

PRODUCE: Final = 0
END_TXN: Final = 26
"""Their api keys in Kafka's protocol."""
LARGEST_REQUEST: Final = 100 * 1024 * 1024
READ_BYTES: Final = 65_536
QUEUED: Final = 1_000
"""Chunks that wait in one direction of a connection before its sender is held up."""
LINGER_S: Final = 0.5
"""How long the broker's side stays open behind a client's end, for what was just written to be read."""


class Frames:
    """Cuts a client's bytes into whole Kafka requests: 4 bytes of length, then so many bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The requests that are complete now, length included; raises ValueError for no Kafka request."""
        self._rest += data
        found = []
        while len(self._rest) >= 4:
            (length,) = struct.unpack_from(">i", self._rest)
            if not 0 < length <= LARGEST_REQUEST:
                raise ValueError(f"a request of {length} bytes")
            if len(self._rest) < 4 + length:
                break
            found.append(self._rest[: 4 + length])
            self._rest = self._rest[4 + length :]
        return found

    def rest(self) -> bytes:
        """The beginning of a request whose end has not come."""
        return self._rest


def api_key(frame: bytes) -> int:
    """Which request a frame is; -1 for one too short to be any."""
    return int(struct.unpack_from(">h", frame, 4)[0]) if len(frame) >= 6 else -1


@dataclass(slots=True)
class Trouble:
    """What a link does to its connections, all in seconds.

    delay_s: each chunk waits so long, in both directions.
    hold_request_s, hold_answer_s: so long an EndTxn waits on its way to the broker, or its answer back.
    hold_produce_s: so long records wait on their way to the broker.
    silent: nothing passes in either direction; connections stay open.
    refuse: new connections are reset.
    """

    delay_s: float = 0.0
    hold_request_s: float = 0.0
    hold_answer_s: float = 0.0
    hold_produce_s: float = 0.0
    silent: bool = False
    refuse: bool = False


@dataclass(eq=False, slots=True)
class Connection:
    """The two sockets of one client, with the times before which nothing may go out."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    up_due: float = 0.0
    down_due: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        """RST to both sides."""
        for writer in (self.client, self.broker):
            _reset(writer)
        for task in self.tasks:
            task.cancel()


class Link:
    """One listening port in front of a port of the broker; used from any thread.

    `seen` counts connections, EndTxn requests, those of them that were held, resets. A separation lasts
    beside whatever trouble the link has: both may come at the same time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, broker_port: int) -> None:
        self.port = 0
        self.broker_port = broker_port
        self.seen: Counter[str] = Counter()
        self._loop = loop
        self._trouble = Trouble()
        self._separation = ""
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._speaks = asyncio.Event()
        self._speaks.set()

    # -- from any thread

    def trouble(self, **what: Any) -> None:
        """Replace what the link does to its connections; without arguments it heals."""
        _wait(self._loop, self._set(Trouble(**what)))

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        return _wait(self._loop, self._cut())

    def separate(self, how: str = "") -> None:
        """Let nothing through, whatever other trouble there is; without an argument this is over.

        how: "silent" for connections that stay open, "refused" for resets.
        """
        _wait(self._loop, self._separate(how))

    def open_connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def waiting(self) -> bool:
        """True while a request is held."""
        return any(one.up_due > self._loop.time() for one in self._connections)

    # -- on the loop

    async def listen(self) -> None:
        """Take a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, end every connection."""
        if self._server is not None:
            self._server.close()
        tasks = [task for one in self._connections for task in one.tasks]
        await self._cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._tell_writers()

    async def _separate(self, how: str) -> None:
        self._separation = how
        if how == "refused":
            await self._cut()
        self._tell_writers()

    def _tell_writers(self) -> None:
        mute = self._trouble.silent or self._separation == "silent"
        self._speaks.clear() if mute else self._speaks.set()

    async def _cut(self) -> int:
        there = list(self._connections)
        for connection in there:
            connection.reset()
        self.seen["resets"] += len(there)
        return len(there)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._trouble.refuse or self._separation == "refused":
                raise ConnectionRefusedError
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self.broker_port)
        except OSError:
            _reset(writer)
            return
        self.seen["connections"] += 1
        one = Connection(writer, to_broker)
        up = asyncio.create_task(self._up(one, reader))
        down = asyncio.create_task(self._down(one, from_broker))
        one.tasks = [up, down]
        self._connections.add(one)
        try:
            # the client's end is not the end: what it sent before may still be on its way
            done, _ = await asyncio.wait(one.tasks, return_when=asyncio.FIRST_COMPLETED)
            if down not in done and up.exception() is None:
                await asyncio.wait([down])
        except asyncio.CancelledError:
            pass  # cut
        finally:
            self._connections.discard(one)
            one.reset()

    async def _up(self, one: Connection, reader: asyncio.StreamReader) -> None:
        """Client to broker, request by request."""
        frames = Frames()
        queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(QUEUED)
        writing = asyncio.create_task(self._write(queue, one.broker, LINGER_S))
        one.tasks.append(writing)
        while data := await _read(reader):
            for frame in frames.feed(data):
                await queue.put((self._due_up(one, frame), frame))
        await queue.put(None)
        await writing

    def _due_up(self, one: Connection, frame: bytes) -> float:
        now, trouble = self._loop.time(), self._trouble
        one.up_due = max(one.up_due, now + trouble.delay_s)
        if api_key(frame) == PRODUCE:
            self.seen["held_produce"] += bool(trouble.hold_produce_s)
            one.up_due = max(one.up_due, now + trouble.hold_produce_s)
        if api_key(frame) == END_TXN:
            self.seen["end_txn"] += 1
            self.seen["held"] += bool(trouble.hold_request_s or trouble.hold_answer_s)
            one.up_due = max(one.up_due, now + trouble.hold_request_s)
            if trouble.hold_answer_s:
                one.down_due = max(one.down_due, now + trouble.hold_answer_s)
        return one.up_due

    async def _down(self, one: Connection, reader: asyncio.StreamReader) -> None:
        """Broker to client, as it comes."""
        queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(QUEUED)
        writing = asyncio.create_task(self._write(queue, one.client, 0.0))
        one.tasks.append(writing)
        while data := await _read(reader):
            one.down_due = max(one.down_due, self._loop.time() + self._trouble.delay_s)
            await queue.put((one.down_due, data))
        await queue.put(None)
        await writing

    async def _write(
        self, queue: asyncio.Queue[tuple[float, bytes] | None], writer: asyncio.StreamWriter, linger_s: float
    ) -> None:
        """Write what is due until the sender's end, then end the other side too; a receiver may be gone."""
        while (item := await queue.get()) is not None:
            due, data = item
            if (wait_s := due - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._speaks.wait()
            with suppress(OSError):
                if not writer.transport.is_closing():
                    writer.write(data)
                    await writer.drain()
        await asyncio.sleep(linger_s)
        with suppress(OSError, RuntimeError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # closed already
        linger = struct.pack("ii", 1, 0)  # close() sends RST, what is unsent is dropped
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The next bytes; none at the end, however it comes."""
    try:
        return await reader.read(READ_BYTES)
    except OSError:
        return b""


class Bundle:
    """The links of one client to every broker as if they were one."""

    def __init__(self, links: Mapping[int, Link]) -> None:
        self._links = links

    @property
    def seen(self) -> Counter[str]:
        """What the links have seen together."""
        return sum((link.seen for link in self._links.values()), Counter())

    def trouble(self, **what: Any) -> None:
        """The same trouble for each link."""
        for link in self._links.values():
            link.trouble(**what)

    def cut(self) -> int:
        """Reset every connection of every link; how many there were."""
        return sum(link.cut() for link in self._links.values())

    def open_connections(self) -> int:
        """How many there are now."""
        return sum(link.open_connections() for link in self._links.values())


class Proxies:
    """The links of a run on an event loop of their own, in a thread; for a `with`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._links: list[Link] = []

    def add(self, broker_port: int) -> Link:
        """A new link to this port of the broker."""
        link = Link(self._loop, broker_port)
        self._links.append(link)
        _wait(self._loop, link.listen())
        return link

    def __enter__(self) -> Proxies:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for link in self._links:
            _wait(self._loop, link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _wait(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the proxies' loop from another thread."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)
