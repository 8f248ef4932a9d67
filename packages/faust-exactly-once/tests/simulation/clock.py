"""One virtual clock with one seeded schedule: who takes the next step, what happens when."""

import heapq
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Protocol

EPOCH_S = 1_700_000_000.0  # what the wall clock shows at the start


class Home(Protocol):
    """The process in which something happens; None stands for the world around the processes.

    While it is frozen, `missed` keeps what should have happened, `held` who would have run.
    """

    dead: bool
    frozen: bool
    missed: list["Timer"]
    held: list["Runnable"]


class Timer:
    """Something that happens at a time, unless it is cancelled."""

    __slots__ = ("act", "home")

    def __init__(self, act: Callable[[], object], home: Home | None) -> None:
        self.act: Callable[[], object] | None = act
        self.home = home

    def cancel(self) -> None:
        """Let it not happen."""
        self.act = None

    def ring(self) -> None:
        """Let it happen."""
        if self.act is not None:
            self.act()


class Runnable(Protocol):
    """What may take a step: an event loop with something to do, a thread that waits for nothing."""

    @property
    def home(self) -> Home:
        """Where it runs."""

    def step(self) -> bool:
        """Take one step; True if there is another one to take."""


class Clock:
    """Virtual seconds, everything that is to happen, everybody who may run; a seed decides."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0
        self.steps = 0
        self.over = False
        self.process: Any = None  # whose step this is
        self.fiber: Any = None  # the simulated thread whose step this is, None in an event loop's
        self.stack: list[Any] = []  # simulated threads that run inside the schedule's own real thread
        self.failures: list[str] = []
        self.trace: list[str] | None = [] if keep_trace else None
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._ready: list[Runnable] = []
        self._done: Callable[[], bool] = lambda: False

    def after(self, delay_s: float, act: Callable[[], object], home: Home | None = None) -> Timer:
        """Let something happen later; in a process that is gone it does not, in a frozen one it waits."""
        timer = Timer(act, home)
        self._order += 1
        heapq.heappush(self._timers, (self.now + delay_s, self._order, timer))
        return timer

    def ready(self, runnable: Runnable) -> None:
        """Let somebody run; each is announced once until `step` says that it has nothing left to do."""
        self._ready.append(runnable)

    def note(self, who: str, *what: Any) -> None:
        """Add a line to the trace, if one is kept."""
        if self.trace is not None:
            self.trace.append(f"{self.now:10.4f} {who:<8} {' '.join(map(str, what))}")

    def fail(self, text: str) -> None:
        """A property is broken: the run ends."""
        self.over = True
        self.failures.append(text)
        self.note("PROPERTY", text)

    def run(self, done: Callable[[], bool]) -> None:
        """Take steps until `done` (asked whenever time passes), or until a property is broken."""
        self._done = done
        while not self.over:
            self.turn()

    def turn(self) -> None:
        """Let one thing happen; it may be called inside the call of a simulated thread that waits."""
        try:
            if self._ready:
                self._step()
            elif not self._timers or self._done():
                self.over = True
            else:
                self._ring()
        except Exception:
            self.fail(f"the simulation itself failed: {traceback.format_exc()}")

    def drain(self) -> None:
        """Take every step that costs no time (a process ends)."""
        while self._ready:
            self._step()

    def _step(self) -> None:
        ready = self._ready
        place = int(self.rng.random() * len(ready)) if len(ready) > 1 else 0
        runnable = ready[place]
        ready[place] = ready[-1]
        ready.pop()
        self.steps += 1
        if runnable.home.frozen:
            runnable.home.held.append(runnable)
        elif runnable.step():
            ready.append(runnable)

    def _ring(self) -> None:
        when, _, timer = heapq.heappop(self._timers)
        home = timer.home
        if timer.act is None or (home is not None and home.dead):
            return
        self.now = max(self.now, when)
        if home is not None and home.frozen:
            home.missed.append(timer)
        else:
            timer.ring()


_running: list[Clock] = []


def clock() -> Clock:
    """The clock of the simulation that runs."""
    return _running[-1]


@contextmanager
def running(one: Clock) -> Iterator[Clock]:
    """Make a clock the one that simulated code sees."""
    _running.append(one)
    try:
        yield one
    finally:
        _running.pop()


class VirtualTime:
    """The clock of the layer's environment."""

    @staticmethod
    def monotonic() -> float:
        """Virtual seconds since the start."""
        return clock().now

    @staticmethod
    def time() -> float:
        """Virtual seconds since the epoch."""
        return EPOCH_S + clock().now

    @staticmethod
    def sleep(seconds: float) -> None:
        """Let the others run meanwhile."""
        clock().fiber.sleep(seconds)
