"""The key queues of a task: one key's events in order, different keys side by side (point 10)."""

import asyncio
import logging
from typing import Any, Protocol

from .counts import reason
from .errors import ExactlyOnceError
from .owner import Owner
from .runners import Handler, Runners
from .source import Source
from .units import Unit, UnitTask, set_current_unit
from .wake import Wake

logger = logging.getLogger(f"{__package__}.task")  # the name under which operators know these lines

class Queueing(UnitTask, Protocol):
    """What the queues need of their task; `wake` says that there may be something to commit."""

    is_open: bool
    accepting: bool
    wake: Wake


class KeyQueues:
    """Admits events, runs their handlers."""

    def __init__(self, task: Queueing, owner: Owner) -> None:
        self.last_of_key: dict[bytes | None, Unit] = {}
        self._task = task
        self._owner = owner
        self._bounds = owner.bounds
        self._runners = Runners(self._handle, owner.bounds)
        self._admitted = 0

    def admit(self, source: Source, event: Any, handler: Handler) -> bool:
        """Give an event its unit, its place in the key's queue; start it if it is the first there.

        Returns:
            False if this epoch had the event before: it is dropped.
        """
        offset, key, last = event.offset, event.key, self.last_of_key
        if offset < source.admit_from:
            return False
        source.admit_from = offset + 1
        self._admitted += 1
        before = last[key] if key in last else None
        unit = Unit(self._task, event, self._admitted, before, offset >= source.end_at_open)
        source.run.append(unit)
        last[key] = unit
        self._bounds.held_bytes += unit.size
        if before is None or before.finished:
            self._runners.put(unit, handler, source.share)
        else:
            before.successor = unit, handler, source.share
        return True

    def unfinished(self, key: bytes, most: int) -> int:
        """How many units of a key wait or run; it stops counting at `most`."""
        found, unit = 0, self.last_of_key.get(key)
        while unit is not None and not unit.finished and found < most:
            found, unit = found + 1, unit.previous
        return found

    async def _handle(self, unit: Unit, handler: Handler) -> None:
        """Run a handler to its end; its asyncio task and context are its own (point 10)."""
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
        unit.undo = None  # or a hot key's units would keep each other alive
        task = self._task
        if task.is_open:
            unit.size += unit.added
            self._bounds.held_bytes += unit.added
        if unit.ended is not None:
            unit.ended()
        if unit.successor is not None:
            after, unit.successor = unit.successor, None
            if task.accepting:
                self._runners.put(*after)
        if not task.wake.is_on:
            task.wake.set()

    async def grace(self, seconds: float) -> None:
        """Let handlers that run finish, for so long."""
        await self._runners.grace(seconds)

    def cancel(self) -> None:
        """Cancel handlers that run; forget those that wait for their turn."""
        self._runners.cancel()


class HandlerFailed(ExactlyOnceError):
    """Raised when a handler failed on every try and the application did not take it: the worker stops."""


def _where(unit: Unit) -> str:
    return f"{unit.event.topic}-{unit.event.partition}@{unit.event.offset}"
