"""The connections of the web port: how many there are, and how long each may keep us waiting.

aiohttp itself keeps a connection for an hour, one whose answers nobody takes for ever, and has no cap. What
is read here of its `RequestHandler` is held by tests/unit/web/test_connections.py.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp.web import AppRunner, BaseRequest, RequestHandler, Response, Server, StreamResponse

from streamsocial_billing.intake.http_replies import refusal
from streamsocial_billing.web.headers import ALWAYS, SERVER
from streamsocial_billing.web.responding import respond

logger = logging.getLogger(__name__)

TOLD_EVERY_S: Final = 60.0
"""A full table is one line in so long, whatever comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many connections there may be, how long one may take.

    most        connections, those in use for a request and those that wait for one
    reserve     beyond `most`, while all of these are in use: for `/health`, `/ready`, `/metrics` alone
    head_s      seconds from connecting, or from the first byte of a later request, to the end of its headers
    idle_s      seconds without a request, and seconds in which nobody takes an answer
    linger_s    seconds in which the rest of a body that was refused is read and thrown away
    look_s      seconds between two looks for those that are overdue
    """

    most: int = 500
    reserve: int = 16
    head_s: float = 10.0
    idle_s: float = 60.0
    linger_s: float = 2.0
    look_s: float = 1.0


def affordable(most: int) -> int:
    """As many connections as half of this process's descriptors allow: Kafka and tables need the others."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if descriptors == resource.RLIM_INFINITY else max(1, min(most, descriptors // 2))


class Connection(RequestHandler):
    """One connection.

    Attributes:
        probes_only: all others were in use when it came: it is served for a probe, then closed.
        head_since: loop time since when the headers of a request are awaited; None: of none.
    """

    __slots__ = ("head_since", "probes_only", "unread_since")

    def __init__(self, manager: Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.probes_only = False
        self.head_since: float | None = None
        self.unread_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Its first request is due."""
        self.head_since = self._loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Headers end the wait for them; a part of them begins it."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self.head_since = None
        elif data and self.head_since is None and self.waits_for_a_request():
            self.head_since = self._loop.time()

    def waits_for_a_request(self) -> bool:
        """True between two requests, and before the first."""
        return self._waiter is not None and not self._waiter.done()

    def is_in_use(self) -> bool:
        """True while a request is handled or about to be; not while the rest of a body is thrown away."""
        return self._request_in_progress or bool(self._messages)

    def has_asked(self) -> bool:
        """True if a request ever came whole over it."""
        return self._request_count > 0

    def is_overdue(self, now_s: float, transport: asyncio.Transport, limits: Limits) -> bool:
        """True if headers take too long, or an answer lies there that nobody takes."""
        if transport.get_write_buffer_size() == 0:
            self.unread_since = None
        elif self.unread_since is None:
            self.unread_since = now_s
        elif now_s - self.unread_since > limits.idle_s:
            return True
        return self.head_since is not None and now_s - self.head_since > limits.head_s

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:  # fmt: skip
        """What is no HTTP is refused as everything else is; aiohttp would quote it, in log and answer."""
        if status != 400 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        logger.info("a request is no HTTP (%s)", type(exc).__name__, extra={"fold": True})
        refused: Response = respond(refusal(400, "bad_request", "this is not a request in HTTP/1.1"))
        refused.force_close()
        refused.headers.update(ALWAYS | {"Server": SERVER})  # no app sees it, so nothing else adds them
        return refused


class Connections(Server):
    """All connections of a web server, the oldest first."""

    def __init__(self, made: Server, limits: Limits, **options: Any) -> None:
        super().__init__(made.request_handler, request_factory=made.request_factory, **options)
        self.limits = limits
        self._open: dict[Connection, asyncio.Transport] = {}
        self._next_look: asyncio.TimerHandle | None = None
        self._closed = 0
        self._told_at: float | None = None

    def __call__(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def __len__(self) -> int:
        return len(self._open)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count it; one too many costs one that waits, or is for probes alone."""
        super().connection_made(handler, transport)
        new = cast(Connection, handler)
        self._open[new] = transport
        if self._next_look is None:
            self._next_look = self._loop.call_later(self.limits.look_s, self._look)
        if len(self._open) <= self.limits.most:
            return
        if not self.close_one(but=new):
            new.probes_only = True
            if len(self._open) > self.limits.most + self.limits.reserve:
                probing = (one for one in self._open if one.probes_only and not one.is_in_use())
                self._drop(next(probing, new))
        self._say_full()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """It counts no more."""
        super().connection_lost(handler, exc)
        self._open.pop(cast(Connection, handler), None)

    def close_one(self, but: Connection | None = None) -> bool:
        """Close the oldest that never asked, else the oldest that waits; False if all are in use."""
        spared = None
        for one in self._waiting(but):
            if not one.has_asked():
                spared = one
                break
            spared = spared or one
        if spared is not None:
            self._drop(spared)
        return spared is not None

    def _waiting(self, but: Connection | None) -> Iterator[Connection]:
        return (
            one for one in self._open if one is not but and not one.probes_only and not one.is_in_use()
        )  # fmt: skip

    def _drop(self, one: Connection) -> None:
        # abort, not close: that would wait for a peer that takes nothing
        self._open.pop(one).abort()
        self._closed += 1

    def _say_full(self) -> None:
        now_s = self._loop.time()
        if self._told_at is not None and now_s - self._told_at < TOLD_EVERY_S:
            return
        self._told_at = now_s
        logger.warning(
            "all %d connections of the web port are taken: the oldest that wait are closed, %d since the "
            "start; bound what comes from one client, or raise BILLING_MAX_CONNECTIONS",
            self.limits.most, self._closed,
        )  # fmt: skip

    def _look(self) -> None:
        now_s = self._loop.time()
        for one, transport in list(self._open.items()):
            if one.is_overdue(now_s, transport, self.limits):
                transport.abort()
        again = bool(self._open)
        self._next_look = self._loop.call_later(self.limits.look_s, self._look) if again else None


class BoundedRunner(AppRunner):
    """Runs an app whose connections are within `limits`."""

    __slots__ = ("limits",)

    def __init__(self, app: Any, limits: Limits, **options: Any) -> None:
        super().__init__(
            app, keepalive_timeout=limits.idle_s, lingering_time=limits.linger_s, **options
        )  # fmt: skip
        self.limits = limits

    async def _make_server(self) -> Server:
        return Connections(await super()._make_server(), self.limits, **self._kwargs)
