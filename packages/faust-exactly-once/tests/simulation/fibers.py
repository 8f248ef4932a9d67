"""Simulated threads, what they wait for, as the layer's environment has them."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .clock import clock

if TYPE_CHECKING:
    from .process import Process


class Killed(BaseException):
    """Raised in every thread of a process that is gone; nothing the thread still does has any effect."""


class _Carrier:
    """A real thread that carries simulated ones, one after the other; it runs only while it has the baton."""

    idle: "list[_Carrier]" = []

    def __init__(self) -> None:
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self.job: Callable[[], None] | None = None
        threading.Thread(target=self._run, name="simulated", daemon=True).start()

    @classmethod
    def find(cls, job: Callable[[], None]) -> "_Carrier":
        """One that has nothing else to do."""
        carrier = cls.idle.pop() if cls.idle else cls()
        carrier.job = job
        return carrier

    def _run(self) -> None:
        while True:
            self._go.acquire()
            job, self.job = self.job, None
            assert job is not None
            job()
            self.idle.append(self)
            self._back.release()

    def go(self) -> None:
        """Let it run until it waits."""
        self._go.release()
        self._back.acquire()

    def wait(self) -> None:
        """Give the baton back until the next `go`; called in the thread itself."""
        self._back.release()
        self._go.acquire()


class Fiber:
    """A simulated thread: it runs until it waits for something.

    A switch between real threads is slow on a busy machine. So the first simulated one runs in the real
    thread of the schedule: while it waits, the schedule goes on inside its call. Likewise one that it starts,
    for whose end it waits.
    """

    def __init__(self, home: "Process", call: Callable[[], object]) -> None:
        self.home = home
        self._clock = home.clock
        self._call = call
        self._parent: Fiber | None = self._clock.fiber
        self._carrier: _Carrier | None = None
        self._begun = self._ended = self._goes_on = False
        self._announced = True  # by whoever made it
        home.fibers[self] = None

    def step(self) -> bool:
        """Run until it waits or ends."""
        self._announced = False
        if self.waits_inside():
            self._goes_on = True
            return False
        on = self._clock
        on.fiber, on.process = self, self.home
        if self._carrier is None:
            self._begin()
        else:
            self._carrier.go()
        on.fiber = None
        return False

    def _begin(self) -> None:
        self._begun = True
        stack = self._clock.stack
        if not stack or (stack[-1] is self._parent and not self.home.may_hang()):
            stack.append(self)
            self._work()
            stack.pop()
        else:
            self._carrier = _Carrier.find(self._work)
            self._carrier.go()

    def blocks_its_parent(self) -> bool:
        """True if whoever started it cannot go on before it ends."""
        return self.waits_inside() and self._clock.stack[0] is not self

    def waits_inside(self) -> bool:
        """True if it can only end once the schedule returns into its call."""
        return self._begun and self._carrier is None

    def _work(self) -> None:
        try:
            if not self.home.dead:
                self._call()
        except Killed:
            pass
        except BaseException as exc:
            if not self.home.dead:
                self._clock.fail(f"{self.home.name}: a thread ended with {exc!r}")
        self._ended = True
        del self.home.fibers[self]

    def park(self) -> None:
        """Wait, in the thread itself, until somebody calls `unpark`.

        Raises:
            Killed: the process is gone.
        """
        on = self._clock
        if self._carrier is not None:
            if not self.home.dead:
                self._carrier.wait()
        else:
            self._goes_on, on.fiber = False, None
            while not (self._goes_on or on.over or self.home.dead):
                on.turn()
            on.fiber, on.process = self, self.home
        if self.home.dead or on.over:
            raise Killed

    def unpark(self) -> None:
        """Let it go on."""
        if not self._announced and not self._ended:
            self._announced = True
            self.home.clock.ready(self)

    def sleep(self, seconds: float) -> None:
        """Wait so long."""
        until = self.home.clock.now + seconds
        timer = self.home.clock.after(seconds, self.unpark, self.home)
        while self.home.clock.now < until:
            self.park()
        timer.cancel()


class Outcome:
    """Stands where the layer uses `concurrent.futures.Future`: a thread waits for what will be known."""

    def __init__(self) -> None:
        self._known: tuple[Any, BaseException | None] | None = None
        self._waiting: list[Fiber] = []

    def done(self) -> bool:
        """True once it is known."""
        return self._known is not None

    def set_result(self, result: Any) -> None:
        """Make it known."""
        self._set((result, None))

    def set_exception(self, exc: BaseException) -> None:
        """Make it known."""
        self._set((None, exc))

    def _set(self, known: tuple[Any, BaseException | None]) -> None:
        self._known = known
        for fiber in self._waiting:
            fiber.unpark()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it.

        Raises:
            TimeoutError: it is not known in time. Whatever the outcome is.
        """
        if self._known is None:
            self._wait(timeout)
        if self._known is None:
            raise TimeoutError
        result, exc = self._known
        if exc is not None:
            raise exc
        return result

    def _wait(self, timeout: float | None) -> None:
        on = clock()
        fiber: Fiber = on.fiber
        self._waiting.append(fiber)
        until = float("inf") if timeout is None else on.now + timeout
        timer = None if timeout is None else on.after(timeout, fiber.unpark, fiber.home)
        while self._known is None and on.now < until:
            fiber.park()
        if timer is not None:
            timer.cancel()


class Lock:
    """Stands where the layer uses `threading.Lock`."""

    def __init__(self) -> None:
        self._waiting: list[Fiber] = []
        self._held = False

    def __enter__(self) -> None:
        fiber: Fiber = clock().fiber
        while self._held:
            self._waiting.append(fiber)
            fiber.park()
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        waiting, self._waiting = self._waiting, []
        for fiber in waiting:
            fiber.unpark()


def start(call: Callable[[], object], name: str) -> None:
    """Run a call in a thread of the process whose thread this is."""
    clock().fiber.home.start_thread(call)


class Executor:
    """Stands where the layer uses `ThreadPoolExecutor`: the loop gives each call a thread of its own."""

    def __init__(self, workers: int, name: str) -> None:
        pass

    def shutdown(self, **_: Any) -> None:
        """Nothing: the threads end with their process."""
