"""An event loop whose clock jumps to the next timer, so that pauses cost no time."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: the time that a wait would take is added to the clock."""

    clock_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now.

        Raises:
            RuntimeError: nothing is ready, no timer is set: the test waits for ever.
        """
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("the test waits for something that nobody will do")
        self.clock_s += max(timeout, 0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For single-threaded tests: everything that runs in an executor must run in `Inline` or `Held`."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self.set_default_executor(Inline())

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.clock_s

    def settle(self, virtual_s: float = 0.001) -> None:
        """Let everything happen that happens by itself within so many virtual seconds."""
        self.run_until_complete(asyncio.sleep(virtual_s))

    def end(self) -> None:
        """Cancel what is left, then close."""
        for _ in range(10):  # a task may answer a cancellation by trying again
            for task in asyncio.all_tasks(self):
                task.cancel()
            self.settle(1)
        self.close()


class VirtualClock:
    """That of such a loop, for the layer: how long a commit took is no time of the machine."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.monotonic = self.time = loop.time

    def sleep(self, seconds: float, /) -> None:
        """No thread waits in virtual time."""
        raise AssertionError(f"a thread sleeps for {seconds} s")


class TickingClock(VirtualClock):
    """The same, but each look at it takes a microsecond: a commit takes some time, as in the real world."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__(loop)
        self._looks = 0
        self.monotonic = self._look

    def _look(self) -> float:
        self._looks += 1
        return self.time() + self._looks * 1e-6


class Inline(ThreadPoolExecutor):
    """Runs each call at once in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call now; the future is done when this returns."""
        future: Future[Any] = Future()
        _run(future, fn, args, kwargs)
        return future


class Held(ThreadPoolExecutor):
    """Keeps each call until the test lets it run, as a slow thread would."""

    def __init__(self) -> None:
        super().__init__(1)
        self.waiting: list[tuple[Future[Any], Callable[..., Any], Any, Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Keep the call."""
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args, kwargs))
        return future

    def run_next(self) -> None:
        """Run the oldest call; even if nobody waits for it any more, as a thread cannot be stopped."""
        future, fn, args, kwargs = self.waiting.pop(0)
        _run(Future() if future.cancelled() else future, fn, args, kwargs)


def _run(future: Future[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        future.set_result(fn(*args, **kwargs))
    except Exception as exc:
        future.set_exception(exc)
