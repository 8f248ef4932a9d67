"""A thread that carries out what waits, all of it at once: the event loop never blocks on Kafka."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from streamsocial_billing.kafka.committed import KafkaProblem

logger = logging.getLogger(__name__)

T = TypeVar("T")
Outcome = KafkaProblem | None
"""None: done and confirmed."""

MAX_WAITING: Final = 5000
CLOSE_S: Final = 1.5
"""How long an end waits for what the thread is at; what is cut off was promised to nobody."""


class MicroBatcher(Generic[T]):
    """Does `work` in a thread of its own, with up to `most` of the things that came meanwhile.

    `work` gives an outcome for each thing, in their order; `end` runs in the same thread after the last.
    """

    def __init__(
        self, name: str, work: Callable[[Sequence[T]], Sequence[Outcome]], end: Callable[[], None], *,
        most: int,
    ) -> None:  # fmt: skip
        self._name = name
        self._work = work
        self._end = end
        self._most = most
        self._waiting: deque[tuple[T, asyncio.Future[Outcome]]] = deque()
        self._news = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def add(self, thing: T) -> asyncio.Future[Outcome]:
        """Have it done; the future never fails. Called on the event loop."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        with self._news:
            if self._closing or len(self._waiting) >= MAX_WAITING:
                why = "this worker stops" if self._closing else f"{MAX_WAITING} others wait already"
                future.set_result(KafkaProblem(f"nothing appended: {why}"))
                return future
            self._waiting.append((thing, future))
            if self._thread is None:  # a worker to which nobody sends has no thread, no connection for it
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._news.notify()
        return future

    async def close(self) -> None:
        """Do what waits, then end; a second call does nothing."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_S)

    def _run(self) -> None:
        while taken := self._take():
            outcomes = self._outcomes([thing for thing, _ in taken])
            futures = [future for _, future in taken]
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                futures[0].get_loop().call_soon_threadsafe(_tell, futures, outcomes)
        self._end()

    def _take(self) -> list[tuple[T, asyncio.Future[Outcome]]]:
        """What waits, at least one; nothing at the end."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]

    def _outcomes(self, things: list[T]) -> Sequence[Outcome]:
        try:
            return self._work(things)
        except Exception as error:
            logger.exception("%s: internal error", self._name)
            return [KafkaProblem(f"internal error ({type(error).__name__})")] * len(things)


def _tell(futures: Sequence[asyncio.Future[Outcome]], outcomes: Sequence[Outcome]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if not future.done():
            future.set_result(outcome)
