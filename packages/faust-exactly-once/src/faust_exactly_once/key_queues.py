"""The key queues of a task: one key's events in order, different keys side by side (point 10)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from .counts import reason
from .errors import ExactlyOnceError
from .owner import Owner
from .source import Source
from .units import Unit, UnitTask, set_current_unit

logger = logging.getLogger(f"{__package__}.task")  # the name under which operators know these lines

Handler = Callable[[Any], Awaitable[None]]


class Queueing(UnitTask, Protocol):
    """What the queues need of their task; `wake` says that there may be something to commit."""

    is_open: bool
    accepting: bool
    wake: asyncio.Event


class KeyQueues:
    """Admits events, runs their handlers."""

    def __init__(self, task: Queueing, owner: Owner) -> None:
        self.last_of_key: dict[bytes | None, Unit] = {}
        self.running: set[asyncio.Task[None]] = set()
        self._task = task
        self._owner = owner
        self._admitted = 0

    def admit(self, source: Source, event: Any, handler: Handler) -> bool:
        """Give an event its unit, its place in the key's queue; start it if it is the first there.

        Returns:
            False if this epoch had the event before: it is dropped.
        """
        if event.offset < source.admit_from:
            return False
        source.admit_from = event.offset + 1
        self._admitted += 1
        before = self.last_of_key.get(event.key)
        unit = Unit(self._task, event, self._admitted, before, event.offset >= source.end_at_open)
        source.run.append(unit)
        self.last_of_key[event.key] = unit
        self._owner.bounds.bytes_held(unit.size)
        if before is None or before.finished:
            self._start(unit, handler)
        else:
            before.successor = (unit, handler)
        return True

    def _start(self, unit: Unit, handler: Handler) -> None:
        running = asyncio.get_running_loop().create_task(self._handle(unit, handler))
        self._owner.bounds.handler_started()
        self.running.add(running)
        running.add_done_callback(self._stopped)

    def _stopped(self, running: "asyncio.Task[None]") -> None:
        self.running.discard(running)
        self._owner.bounds.handler_ended()

    async def _handle(self, unit: Unit, handler: Handler) -> None:
        """Run a handler in its own asyncio task and context (point 10)."""
        set_current_unit(unit)
        try:
            await handler(unit.event)
        except asyncio.CancelledError:
            if not self._task.is_open:
                raise
            await self._try_again(unit, handler, RuntimeError("the handler cancelled itself"))
        except Exception as exc:
            await self._try_again(unit, handler, exc)
        self._finish(unit)

    async def _try_again(self, unit: Unit, handler: Handler, exc: Exception) -> None:
        """Empty the unit, run its handler again; after the last try the application decides (point 9e)."""
        options = self._owner.options
        for attempt in range(1, options.handler_tries):
            unit.empty()
            logger.warning(
                "handling the event %s failed, try %d of %d: %s", _where(unit), attempt,
                options.handler_tries, reason(exc), exc_info=exc, extra={"task": self._task.partition},
            )  # fmt: skip
            await asyncio.sleep(0.05 * 2**attempt)
            try:
                return await handler(unit.event)
            except asyncio.CancelledError:
                if not self._task.is_open:
                    raise
            except Exception as again:
                exc = again
        unit.empty()
        try:
            if options.on_handler_failure is None:
                raise exc
            await options.on_handler_failure(unit.event, exc)
        except (Exception, asyncio.CancelledError) as last:
            if not self._task.is_open:
                raise
            why = f"handling the event {_where(unit)} failed on every try: {reason(last)}"
            self._owner.task_failed(self._task, HandlerFailed(why))
            await asyncio.Event().wait()  # until the epoch is closed, which cancels this

    def _finish(self, unit: Unit) -> None:
        unit.finished = True
        unit.undo.clear()  # or a hot key's units would keep each other alive
        if self._task.is_open:
            self._owner.bounds.bytes_held(unit.count_what_it_did())
        after, unit.successor = unit.successor, None
        if after is not None and self._task.accepting:
            self._start(*after)
        self._task.wake.set()

    async def grace(self, seconds: float) -> None:
        """Let handlers that run finish, for so long."""
        if self.running:
            await asyncio.wait(set(self.running), timeout=seconds)


class HandlerFailed(ExactlyOnceError):
    """Raised when a handler failed on every try and the application did not take it: the worker stops."""


def _where(unit: Unit) -> str:
    return f"{unit.event.topic}-{unit.event.partition}@{unit.event.offset}"
