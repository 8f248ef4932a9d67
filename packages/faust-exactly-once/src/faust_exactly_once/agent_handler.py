"""One event's way through a plain agent, again after each failure, until its unit ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .errors import ExactlyOnceError
from .units import Unit, current_unit

Decode = Callable[[Any], Awaitable[Any]]
Outcome = asyncio.Future[None]


class AgentLeft(ExactlyOnceError):
    """Raised for the unit whose agent went away amid it: the unit is emptied, its event comes again."""


class AgentHandler:
    """Stands in the event's key queue as its handler, while the agent's own asyncio task does the work.

    The queue calls `run`; the stream waits for `ready`, then `take`s the event for the agent, then settles
    the outcome. A failure ends `run` with the agent's exception: the unit is emptied, the queue tries again
    or lets the application decide (point 9e), as for any handler.
    """

    def __init__(self, decode: Decode) -> None:
        self.event: Any = None
        self.unit: Unit | None = None
        self._decode = decode
        self._over = False
        self._outcome: Outcome | None = None
        self._agent: asyncio.Task[Any] | None = None
        self._changed = asyncio.Event()

    async def run(self, record: Any) -> None:
        """What the queue runs: decode inside the unit, then wait for the agent."""
        self.unit = current_unit()
        self.unit.ended = self.end
        self.event = await self._decode(record)
        outcome = self._outcome = asyncio.get_running_loop().create_future()
        self._changed.set()
        try:
            await outcome
        finally:
            # cancelled: the epoch is over, and what the agent still does changes nothing
            if outcome.cancelled() and self._agent is not None:
                self._agent.cancel()
            self._outcome = self._agent = None

    def end(self) -> None:
        """Take notice that the unit is finished, or that its epoch is over."""
        self._over = True
        self._changed.set()

    async def ready(self) -> bool:
        """Wait until the agent may have the event; False if it will not get it (again)."""
        while not self._over and (self._outcome is None or self._outcome.done()):
            self._changed.clear()
            await self._changed.wait()
        return not self._over

    def take(self) -> Outcome:
        """Give the event to the running asyncio task, the agent's.

        Returns:
            what the agent's work ends in: see `finish`, `fail`.
        """
        assert self._outcome is not None  # noqa: S101 - `ready` was awaited just before
        self._agent = asyncio.current_task()
        return self._outcome


def finish(outcome: Outcome) -> None:
    """The agent asked for the next event: its unit is finished."""
    if not outcome.done():
        outcome.set_result(None)


def fail(outcome: Outcome, exc: BaseException) -> None:
    """The agent did not finish: its unit is emptied, then tried again."""
    if not outcome.done():
        known = isinstance(exc, Exception)
        left = AgentLeft(f"the agent ended while it handled an event: {type(exc).__name__}")
        outcome.set_exception(exc if known else left)
