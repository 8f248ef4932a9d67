"""A bound on how many are inside at once; further ones wait in their order."""

from __future__ import annotations

import asyncio
from collections import deque

from streamsocial_billing.deadlines import Deadlines


class Permits:
    """So many permits. Who has one must `leave` it; one that is left goes to who has waited longest.

    What asyncio.Semaphore does; but who finds one `free` may count it down, and who leaves while nobody is
    `waiting` may count it up: that is all that nearly every call to a gateway costs. Nobody waits while a
    permit is free.
    """

    def __init__(self, number: int) -> None:
        self.free = number
        self.waiting: deque[_Waiting] = deque()
        self._deadlines = Deadlines()

    async def wait(self, timeout_s: float) -> bool:
        """Take a permit, in one's turn; False: for so long there was none."""
        if self.free:
            self.free -= 1
            return True
        mine = _Waiting()
        self.waiting.append(mine)
        self._deadlines.add(mine, timeout_s)
        try:
            return await mine.future
        except asyncio.CancelledError:
            if mine.done() and not mine.future.cancelled() and mine.future.result():
                self.leave()  # a permit was handed over at the very moment of the end
            raise

    def leave(self) -> None:
        """Give a permit back, or on."""
        while self.waiting:
            next_one = self.waiting.popleft()
            if not next_one.done():
                next_one.future.set_result(True)
                return
        self.free += 1


class _Waiting:
    """One who waits; `future` says whether a permit came."""

    def __init__(self) -> None:
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.done = self.future.done

    def late(self) -> None:
        self.future.set_result(False)
