"""What the layer takes from outside: Kafka's clients, the clock, threads, the disk."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any, Final, Protocol

from .clients import LIBRDKAFKA, Clients
from .disk import ROCKSDB, Disk


class Clock(Protocol):
    """What is asked of a clock; the module `time` is one."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def time(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float, /) -> None:
        """Hold the calling thread for so long."""


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._at = clock.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds until then; negative once it is over."""
        return self._at - self._clock.monotonic()

    def time_out_s(self) -> float:
        """The same for librdkafka, which wants more than nothing: one call is made, however late it is."""
        return max(0.001, self.left_s())


def _pool(workers: int, name: str) -> Executor:
    return ThreadPoolExecutor(workers, thread_name_prefix=name)


def _start_daemon(call: Callable[[], None], name: str) -> None:
    """A daemon must not hold up the exit."""
    Thread(target=call, name=name, daemon=True).start()


@dataclass(frozen=True, slots=True)
class Threads:
    """How threads are made, and what they share.

    Attributes:
        pool: so many threads of a name, for calls that block.
        start: runs a call in a thread of its own, which nobody waits for.
        lock: held by one thread at a time.
        future: what one thread waits for and another one makes known.
    """

    pool: Callable[[int, str], Executor] = _pool
    start: Callable[[Callable[[], None], str], None] = _start_daemon
    lock: Callable[[], AbstractContextManager[Any]] = Lock
    future: "Callable[[], Future[Any]]" = Future


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything around the layer: the real world, or a simulation's."""

    clients: Clients = LIBRDKAFKA
    clock: Clock = time
    threads: Threads = Threads()
    disk: Disk = ROCKSDB


REAL: Final = Environment()
