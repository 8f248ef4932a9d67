"""A simulated operating-system process: an event loop with threads, killed or frozen at any step."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

from .clock import Clock, Runnable, Timer
from .fibers import Fiber

PATIENCE = 200  # steps that what ends may take


class Process:
    """What is killed or frozen as a whole."""

    def __init__(self, on: Clock, name: str) -> None:
        self.clock = on
        self.name = name
        self.dead = False
        self.frozen = False
        self.loop = Loop(self)
        self.fibers: dict[Fiber, None] = {}
        self.missed: list[Timer] = []
        self.held: list[Runnable] = []

    def may_hang(self) -> bool:
        """True while a thread may begin to wait for ever."""
        return False

    def start_thread(self, call: Callable[[], object]) -> None:
        """Run a call in a thread of its own."""
        self.clock.ready(Fiber(self, call))

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True

    def wake(self) -> None:
        """SIGCONT: what came meanwhile happens now."""
        self.frozen = False
        held, self.held = self.held, []
        for runnable in held:
            self.clock.ready(runnable)
        missed, self.missed = self.missed, []
        if not self.dead:
            for timer in missed:
                timer.ring()

    def kill(self) -> None:
        """SIGKILL; the Python objects of its threads are taken apart, without any effect outside."""
        if self.dead:
            return
        self.dead = True
        self.wake()
        for _ in range(PATIENCE):
            self.loop.cancel_everything()
            for fiber in list(self.fibers):
                fiber.unpark()
            self.clock.drain()
            if not self.loop.tasks and all(fiber.waits_inside() for fiber in self.fibers):
                return
        raise RuntimeError(f"{self.name} cannot be taken apart: {self.fibers} {self.loop.tasks}")


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set is the same in every run of a seed."""

    def __init__(self, number: int, coro: Any, **kwargs: Any) -> None:
        self.number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self.number


class Loop:
    """The part of an event loop that the product uses; each callback is one step of the schedule."""

    def __init__(self, home: Process) -> None:
        self.home = home
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._callbacks: deque[asyncio.Handle] = deque()
        self._announced = False
        self._made = 0
        self._loop: Any = self  # for asyncio, which asks less of it than its type says

    def step(self) -> bool:
        """Run one callback."""
        handle = self._callbacks.popleft()
        if not handle.cancelled():
            self.home.clock.process = self.home
            asyncio._set_running_loop(self._loop)  # noqa: SLF001 - how an event loop is made
            try:
                handle._run()  # noqa: SLF001
            finally:
                asyncio._set_running_loop(None)  # noqa: SLF001
        self._announced = bool(self._callbacks)
        return self._announced

    def _queue(self, handle: asyncio.Handle) -> None:
        self._callbacks.append(handle)
        if not self._announced:
            self._announced = True
            self.home.clock.ready(self)

    def cancel_everything(self) -> None:
        """End what still runs, the loop's process being gone."""
        for task in list(self.tasks):
            task.cancel()

    # -- what asyncio asks of a loop

    def time(self) -> float:
        """Virtual seconds."""
        return self.home.clock.now

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in one of the next steps."""
        handle = asyncio.Handle(callback, args, self._loop, context)
        self._queue(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in one of the next steps."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:  # fmt: skip
        """Run a callback after so many seconds."""
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self._loop, context)
        self.home.clock.after(delay, lambda: None if handle.cancelled() else self._queue(handle), self.home)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:  # fmt: skip
        """Run a callback at a time."""
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self._loop)

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """A task, remembered until it ends."""
        self._made += 1
        task = NumberedTask(self._made, coro, loop=self._loop, **kwargs)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run a call in a thread of its own."""
        future = self.create_future()

        def job() -> None:
            try:
                result = func(*args)
            except Exception as exc:
                self.call_soon(_end, future, None, exc)
            else:
                self.call_soon(_end, future, result, None)

        self.home.start_thread(job)
        return future

    def get_debug(self) -> bool:
        """No."""
        return False

    def is_running(self) -> bool:
        """Yes, as far as anybody asks."""
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody caught is a failure of the run, unless the process is gone."""
        if not self.home.dead:
            self.home.clock.fail(f"{self.home.name}: {context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: it is looked at when it rings."""


def _end(future: asyncio.Future[Any], result: Any, exc: Exception | None) -> None:
    if future.done():
        return
    if exc is None:
        future.set_result(result)
    else:
        future.set_exception(exc)
