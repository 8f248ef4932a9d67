"""Asyncio tasks that run handlers, one handler after the other in each (point 10).

A task for each handler cost an eighth of all that an event costs. A handler that ends without waiting leaves
its task to the next one; one that waits keeps its task to itself, and another task goes on.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from types import coroutine
from typing import Any

from .bounds import Bounds, Share
from .units import Unit

Handler = Callable[[Any], Awaitable[None]]
Run = Callable[[Unit, Handler], Coroutine[Any, Any, None]]

TURN = 64  # so many handlers run in a row in one task before the rest of the event loop has its turn
WIDEST = 16  # so many tasks are called at once while handlers wait: each turn of the event loop has its price


class Runners:
    """Runs what is put into it, in that order as far as nothing waits.

    `run` handles one unit to its end; it raises CancelledError only when its epoch is over. While a handler
    runs, its asyncio task and context are its own.
    """

    def __init__(self, run: Run, bounds: Bounds) -> None:
        self._run = run
        self._bounds = bounds
        self._ready: deque[tuple[Unit, Handler, Share]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._called = 0  # tasks that are on their way to what is ready
        self._width = 1  # how many are called
        self._inside = 0  # tasks that are inside a handler: seen by another one, they wait
        self._active = 0
        self._quiet: asyncio.Event | None = None
        self._context = copy_context()

    def put(self, unit: Unit, handler: Handler, share: Share) -> None:
        """Have a unit handled as soon as the event loop comes to it; it counts in its topic's share."""
        self._ready.append((unit, handler, share))
        self._active += 1
        share.running += 1
        self._bounds.running += 1
        if not self._called:
            self._call()

    def _call(self) -> None:
        for _ in range(min(self._width, len(self._ready))):
            self._called += 1
            self._call_one()

    def _call_one(self) -> None:
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        task = asyncio.get_running_loop().create_task(self._serve(), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        me: Any = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._comes()
        try:
            while not me.cancelling():  # a handler may have cancelled itself: its task ends with it
                await self._serve_ready(me)
                waiter = loop.create_future()
                self._idle.append(waiter)
                await waiter
                self._comes()
        finally:
            if self._ready and not self._called:
                self._call()

    def _comes(self) -> None:
        """A task that was called begins; if the others wait, more are called next time."""
        self._called -= 1
        self._width = min(2 * self._width, WIDEST) if self._inside and self._ready else 1

    async def _serve_ready(self, me: Any) -> None:
        ready, bounds = self._ready, self._bounds
        for _ in range(TURN):
            if not ready or me.cancelling():
                return
            unit, handler, share = ready.popleft()
            if ready and not self._called:
                self._call()  # it comes to the rest if this handler waits, or at the end of this turn
            self._inside += 1
            step, running = self._context.copy().run, self._run(unit, handler)
            try:
                await _rest(step, running, step(running.send, None))
            except StopIteration:
                pass  # nearly always: it did not wait
            finally:
                self._inside -= 1
                self._active -= 1
                bounds.running -= 1
                share.running -= 1
                if bounds.asked or self._quiet is not None:
                    self._ended()
        if ready and not self._called:
            self._call()

    def _ended(self) -> None:
        """Tell those who wait for it that a handler has ended."""
        self._bounds.has_room()
        if not self._active and self._quiet is not None:
            self._quiet.set()

    async def grace(self, seconds: float) -> None:
        """Let handlers that run finish, for so long."""
        if not self._active:
            return
        self._quiet = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        except TimeoutError:
            pass

    def cancel(self) -> None:
        """End: cancel what runs, forget what is ready."""
        self._active -= len(self._ready)
        self._bounds.running -= len(self._ready)
        for _, _, share in self._ready:
            share.running -= 1
        self._ready.clear()
        self._ended()
        for task in [*self._tasks]:
            task.cancel()


@coroutine
def _rest(
    step: Callable[..., Any], running: Coroutine[Any, Any, None], waits_for: Any
) -> Generator[Any, Any, None]:
    """Await a coroutine that waits for something, each of its steps in a context not the task's own."""
    send = running.send
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:
                waits_for = step(running.throw, error)
            else:
                waits_for = step(send, value)
    except StopIteration:
        return
