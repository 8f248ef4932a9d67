"""Ends waits at their time, with one timer for all of them: nearly every wait is over long before."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol


class Wait(Protocol):
    """Something that is waited for."""

    def done(self) -> bool:
        """True once it is over."""

    def late(self) -> None:
        """Called at its time if it is not over; then it is."""


class Deadlines:
    """Each wait that is not over at its time is told so, none before. Used from one event loop.

    A timer of the loop's for each wait costs as much as a short wait does.
    """

    def __init__(self) -> None:
        self._waits: list[tuple[float, int, Wait]] = []
        self._number = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wait: Wait, within_s: float) -> None:
        """From now on."""
        loop, waits = asyncio.get_running_loop(), self._waits
        while waits and waits[0][2].done():
            heappop(waits)
        at = loop.time() + within_s
        heappush(waits, (at, next(self._number), wait))
        if self._timer is None or at < self._timer.when():
            self._set(loop, at)

    def _set(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        timer, self._timer = self._timer, None
        now = loop.time() if timer is None else max(loop.time(), timer.when())
        waits = self._waits
        while waits and (waits[0][0] <= now or waits[0][2].done()):
            wait = heappop(waits)[2]
            if not wait.done():
                wait.late()
        if waits:
            self._set(loop, waits[0][0])


class Patience:
    """Waits for futures that others may wait for, too: so long at most, without ending them."""

    def __init__(self) -> None:
        self._deadlines = Deadlines()

    async def wait(self, outcome: asyncio.Future[Any], within_s: float) -> bool:
        """True once it is done; False: it was not within that time."""
        if not outcome.done():
            mine = _Mine(asyncio.get_running_loop())
            outcome.add_done_callback(mine.heard)
            self._deadlines.add(mine, within_s)
            await mine.future
        return outcome.done()


class _Mine:
    """One who waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self.done = self.future.done

    def late(self) -> None:
        self.future.set_result(None)

    def heard(self, _: object) -> None:
        if not self.future.done():
            self.future.set_result(None)
