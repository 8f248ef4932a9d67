"""Streams for plain agents: an event's unit ends when the agent asks for the next event."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import faust
from faust.exceptions import Skip
from faust.streams import maybe_forward
from mode.utils.futures import maybe_async

from .agent_handler import AgentHandler, AgentLeft, Outcome, fail, finish
from .batch import Batch
from .errors import SetupRefused
from .topic import Topic
from .units import set_current_unit


class Stream(faust.Stream):  # type: ignore[type-arg]
    """What an agent iterates: whole batches of a batched topic, else one event after the other.

    A plain agent (`async for value in stream`, `stream.events()`, `stream.items()`) gets the events of its
    topic in delivery order, each in a unit that finishes when the next one is asked for. An exception, a
    cancelled agent, a loop that is left amid an event empties the unit; the event comes again (point 12).
    """

    _batch: Batch | None = None
    _handler: AgentHandler | None = None
    _outcome: Outcome | None = None
    _sensed: Any = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if not isinstance(self.channel, Topic):
            raise SetupRefused(f"{self.channel} cannot be streamed exactly once: iterate a topic of this app")
        return super().__aiter__() if self.channel.batches else self._one_after_the_other()

    def agent_failed(self, exc: BaseException) -> None:
        """Let the event that the agent was working on come again."""
        if self._outcome is not None:
            fail(self._outcome, exc)

    async def _one_after_the_other(self) -> AsyncIterator[Any]:
        self._finalized = True
        started_here = await self.maybe_start()
        self.agent_failed(AgentLeft("the agent began another loop while it handled an event"))
        try:
            while not self.should_stop:
                handler = await self._next_handler()
                outcome = self._outcome = handler.take()
                try:
                    value = await self._enter(handler)
                    if value is not self._skipped_value:
                        self.events_total += 1
                        yield value
                except BaseException as exc:
                    fail(outcome, exc)
                    raise
                self._leave(handler)
                finish(outcome)
        except StopAsyncIteration:
            return  # how Faust tells a stream that its agent stops
        finally:
            set_current_unit(None)
            if started_here:
                await self.stop()
                self.service_reset()

    async def _enter(self, handler: AgentHandler) -> Any:
        """Make the unit the agent's, then let the processors see the value."""
        set_current_unit(handler.unit)
        self._set_current_event(handler.event)
        message = handler.event.message
        self._sensed = self._on_stream_event_in(message.tp, message.offset, self, handler.event)
        value = handler.event.value
        try:
            for processor in self._processors:
                value = await maybe_async(processor(value))
        except Skip:
            return self._skipped_value
        return value

    def _leave(self, handler: AgentHandler) -> None:
        set_current_unit(None)
        self._set_current_event(None)
        message = handler.event.message
        self._on_stream_event_out(message.tp, message.offset, self, handler.event, self._sensed)

    async def _next_handler(self) -> AgentHandler:
        """The event that failed before, as soon as it may be tried again; else the next one."""
        while True:
            if self._handler is None:
                self._handler = await self._admit_next()
            if await self._handler.ready():
                return self._handler
            self._handler = None

    async def _admit_next(self) -> AgentHandler:
        """Put the next event into its key queue."""
        channel: Any = self.channel
        while True:
            if self._batch is None:
                self._batch = (await channel.queue.get()).value
                self._batch.begin()
            handler = AgentHandler(channel.decode_record)
            if await self._batch.admit_next(handler):
                return handler
            self._batch.end()
            self._batch = None

    # -- Faust's other ways; what would go past a unit is refused

    def echo(self, *channels: Any) -> "Stream":
        """Forward values to other topics, in the unit of their event."""

        topics = [self.derive_topic(one) if isinstance(one, str) else one for one in channels]

        async def echoing(value: Any) -> Any:
            for topic in topics:
                await maybe_forward(value, topic)
            return value

        self.add_processor(echoing)
        return self

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: what buffers, re-partitions or joins events has no unit; batches are the fast way.

        Raises:
            SetupRefused: always; the worker stops.
        """
        raise SetupRefused(
            "take, through, group_by, joins, noack of a stream are not exactly once: iterate it event by "
            "event, mark its topic with batched(), or send to another topic of this app"
        )

    take = take_events = take_with_timestamp = noack_take = noack = _refuse
    through = group_by = combine = __and__ = _refuse
    join = left_join = inner_join = outer_join = _refuse
