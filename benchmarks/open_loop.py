"""HTTP requests at scheduled moments, whether or not earlier ones are answered; as cheap as Python can."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"
FIRST_CONNECTIONS: Final = 32
MOST_CONNECTIONS: Final = 1000
LOOK_EVERY_S: Final = 0.001
ANSWERED_WITHIN_S: Final = 20.0
_LENGTH: Final = b"content-length:"


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of each request, in their order; `cpu_s`: what asking cost.

    statuses      0: not answered
    latencies_ms  from the scheduled moment, however late it was sent; of what was not answered: math.inf
    """

    statuses: list[int]
    latencies_ms: list[float]
    took_s: float
    cpu_s: float


def whole_answer(data: bytes) -> int | None:
    """The status of an HTTP answer with a Content-Length; None: there is more to come."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    lower = head.lower()
    at = lower.find(_LENGTH)
    length = int(lower[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    return int(head[9:12]) if len(body) >= length else None


class _Line(asyncio.Protocol):
    """A connection that is kept: one request at a time."""

    def __init__(self, of: _Asking) -> None:
        self._of = of
        self._number = -1
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def ask(self, number: int) -> None:
        assert self._transport is not None  # noqa: S101
        self._number, self._read = number, b""
        self._transport.write(self._of.requests[number])

    def data_received(self, data: bytes) -> None:
        self._read += data
        status = whole_answer(self._read)
        if status is not None:
            number, self._number = self._number, -1
            self._of.answered(self, number, status)

    def connection_lost(self, exc: Exception | None) -> None:
        self._of.lost(self, self._number)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Asking:
    """The requests, the lines that are free, what waits for one."""

    def __init__(self, port: int, requests: Sequence[bytes], a_second: float) -> None:
        self.requests = requests
        self._port = port
        self._a_second = a_second
        self._statuses = [0] * len(requests)
        self._latencies = [float("inf")] * len(requests)
        self._open = 0
        self._lines: set[_Line] = set()
        self._free: list[_Line] = []
        self._waiting: deque[int] = deque()
        self._left = len(requests)
        self._all = asyncio.Event()
        self._began = 0.0
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self) -> Answered:
        """Ask all, wait for the answers."""
        for _ in range(FIRST_CONNECTIONS):
            await self._connect()
        cpu_s, self._began = time.process_time(), time.monotonic()
        asked = 0
        while asked < len(self.requests):
            due = min(len(self.requests), int((time.monotonic() - self._began) * self._a_second) + 1)
            for number in range(asked, due):
                self._ask(number)
            asked = due
            await asyncio.sleep(LOOK_EVERY_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                await self._all.wait()
        took_s, cpu_s = time.monotonic() - self._began, time.process_time() - cpu_s
        for line in list(self._lines):
            line.close()
        return Answered(self._statuses, self._latencies, took_s, cpu_s)

    def answered(self, line: _Line, number: int, status: int) -> None:
        """An answer is whole: the line is free for what waits."""
        self._statuses[number] = status
        self._latencies[number] = (time.monotonic() - self._began - number / self._a_second) * 1000
        self._ended()
        if self._waiting:
            line.ask(self._waiting.popleft())
        else:
            self._free.append(line)

    def lost(self, line: _Line, number: int) -> None:
        """A line has ended; what it was asking stays unanswered."""
        self._lines.discard(line)
        self._open -= 1
        if line in self._free:
            self._free.remove(line)
        if number >= 0:
            self._ended()

    def _ended(self) -> None:
        self._left -= 1
        if not self._left:
            self._all.set()

    def _ask(self, number: int) -> None:
        if self._free:
            self._free.pop().ask(number)
            return
        self._waiting.append(number)
        if self._open < MOST_CONNECTIONS:
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        self._open += 1
        _, line = await asyncio.get_running_loop().create_connection(lambda: _Line(self), HOST, self._port)
        self._lines.add(line)
        if self._waiting:
            line.ask(self._waiting.popleft())
        else:
            self._free.append(line)


def ask_all(port: int, requests: Sequence[bytes], a_second: float) -> Answered:
    """Send one request after the other, so many a second, to this port of the loopback."""

    async def asked() -> Answered:
        return await _Asking(port, requests, a_second).run()

    return asyncio.run(asked())


def request(path: str, key: str, body: bytes) -> bytes:
    """A POST of JSON with an Idempotency-Key, as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
