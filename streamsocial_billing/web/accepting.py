"""Accepts connections, also where the process has no descriptor left for one.

asyncio's own loop writes a traceback for each place of its backlog then, every second, and leaves the clients
waiting. Here one of them is accepted with a descriptor that is kept for that, and closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from contextlib import suppress
from typing import Any, Final, cast

from aiohttp.web import BaseSite

from streamsocial_billing.web.connections import BoundedRunner, Connections

logger = logging.getLogger(__name__)

BACKLOG: Final = 512
"""Connections that the kernel holds until they are accepted; at most net.core.somaxconn."""
AT_ONCE: Final = 64
"""Accepted in one turn of the event loop."""
PAUSE_S: Final = 1.0
TOLD_EVERY_S: Final = 60.0
EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BoundedSite(BaseSite):
    """Serves on a socket that listens, or is about to."""

    def __init__(self, runner: BoundedRunner, taken: socket.socket) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._spare = _descriptor()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._told_at: float | None = None

    @property
    def name(self) -> str:
        """Its address."""
        host, port = self._taken.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def connections(self) -> Connections:
        """Those that were accepted."""
        return cast(Connections, self._runner.server)

    async def start(self) -> None:
        """Listen."""
        await super().start()
        self._taken.setblocking(False)
        self._taken.listen(BACKLOG)
        self._loop.add_reader(self._taken, self._accept)

    async def stop(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._taken)
        self._taken.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        await super().stop()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connected, _ = self._taken.accept()
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._exhausted(error)
                elif not isinstance(error, BlockingIOError):  # the peer is gone again, or its network is
                    logger.info("a connection was not accepted: %s", error, extra={"fold": True})
                return
            connected.setblocking(False)
            task = self._loop.create_task(self._serve(connected))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _serve(self, connected: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self.connections, connected)
        except Exception as error:  # the process's connections must not end with one of them
            connected.close()
            logger.info("a connection ended at once: %s", error, extra={"fold": True})

    def _exhausted(self, error: OSError) -> None:
        """No descriptor is left: refuse one client, so that the next finds the place of one that waits."""
        now_s = self._loop.time()
        if self._told_at is None or now_s - self._told_at >= TOLD_EVERY_S:
            self._told_at = now_s
            logger.error(
                "the web port cannot accept a connection beside its %d (%s): raise the limit of "
                "descriptors (ulimit -n), or lower BILLING_MAX_CONNECTIONS",
                len(self.connections), error.strerror,
            )  # fmt: skip
        self.connections.close_one()
        if not self._refuse_one():
            self._loop.remove_reader(self._taken)
            self._pause = self._loop.call_later(
                PAUSE_S, self._loop.add_reader, self._taken, self._accept
            )  # fmt: skip

    def _refuse_one(self) -> bool:
        """Take one with the spare descriptor and close it; False if there is no spare one."""
        if self._spare is None:
            self._spare = _descriptor()
        if self._spare is None:
            return False
        os.close(self._spare)
        with suppress(OSError):
            self._taken.accept()[0].close()
        self._spare = _descriptor()
        return True


def _descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
