"""What the simulated workers run: handlers that read, call the service, write, send; agents of both kinds."""

import asyncio
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from faust_exactly_once.agent import Agent
from faust_exactly_once.batch import Batch
from faust_exactly_once.stream import Stream
from faust_exactly_once.topic import Topic
from faust_exactly_once.units import Headers, Outgoing, Unit, current_unit

from .plan import SOURCES

if TYPE_CHECKING:
    from .worker import Worker

TABLES = {"counts": "counts-changelog", "odd": "odd-changelog", "sums": "sums-changelog"}
OUTPUTS = ("results", "metrics", "dead")
WAYS_TO_FAIL = ("raise", "leave", "return", "cancel", "decode")


class Record(NamedTuple):
    """A source record as a handler sees it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Failed(RuntimeError):
    """Raised by a handler where the seed wants it."""


class Left(Exception):
    """Raised to leave a plain agent's loop amid an event."""


class Service:
    """Does its work once per key, whoever calls how often; its answers take a while, or get lost."""

    def __init__(self, rng: Random) -> None:
        self.calls: Counter[bytes] = Counter()
        self.done: set[bytes] = set()
        self._rng = rng

    async def call(self, key: bytes) -> None:
        """Do the work of a key.

        Raises:
            Failed: the answer is lost; the work is done or not.
        """
        self.calls[key] += 1
        fate = self._rng.random()
        await asyncio.sleep(self._rng.choice((0, 0.003, 0.05, 0.4)))
        if fate < 0.02:
            raise Failed("error before the work")
        self.done.add(key)
        if fate < 0.04:
            raise Failed("the answer is lost")


class Application:
    """The handlers of one worker.

    A state key counts the events of a message key; `odd` has an entry while the count is odd. So results
    carry 1, 2, 3, ... for each key, whatever goes wrong. `sums` holds the task's counters.
    """

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._world = worker.world
        self._busy: dict[tuple[Any, bytes | None], None] = {}
        self._queues: dict[str, asyncio.Queue[Any]] = {topic: asyncio.Queue() for topic in SOURCES}

    def start_agents(self) -> None:
        """One agent a source topic."""
        loop = asyncio.get_running_loop()
        for topic, queue in self._queues.items():
            plain = self._world.plan.plain
            agent = PlainAgent(self, topic, queue).run() if plain else self._batches(queue)
            loop.create_task(agent)

    def give(self, topic: str, batch: Batch) -> None:
        """Put a batch on the channel of the topic's agent."""
        self._queues[topic].put_nowait(SimpleNamespace(value=batch))

    async def _batches(self, queue: "asyncio.Queue[Any]") -> None:
        while True:
            batch: Batch = (await queue.get()).value
            await batch.each(self.handle)

    async def handle(self, event: Any) -> None:
        """Count, call, write, send; fail amid it where the seed wants it."""
        unit = current_unit()
        key_queue = (unit.task, event.key)
        self._world.handler_begins(self._worker, unit, key_queue in self._busy)
        self._busy[key_queue] = None
        try:
            await self._call_and_write(event, unit)
        finally:
            self._busy.pop(key_queue, None)

    async def _call_and_write(self, event: Any, unit: Unit) -> None:
        unit.count("sums", "events", 1)
        key = state_key(event)
        count = int(unit.read("counts", key) or 0)
        if (unit.read("odd", key) is not None) != (count % 2 == 1):
            self._world.clock.fail(f"1: {event}: the tables disagree about {key!r}: {count}")
        await self._world.service.call(event.value)
        way = self._world.way_to_fail(event)
        if way is not None:
            self._half_the_work(unit, key, count, event)
            raise {"leave": Left, "cancel": asyncio.CancelledError}.get(way, Failed)(way)
        outcome(unit, "results", event, count + 1)
        unit.send(Outgoing("metrics", None, event.value))
        if self._world.is_followed(event):
            unit.send(Outgoing("again", event.key, b"f" + event.value))

    def _half_the_work(self, unit: Unit, key: bytes, count: int, event: Any) -> None:
        unit.write("counts", key, b"-1")
        unit.write("odd", key, None if count % 2 else b"yes")
        unit.send(Outgoing("results", event.key, event.value + b"/half"))

    async def dead_letter(self, event: Any, exc: Exception) -> None:
        """The application's answer to a handler that fails for good."""
        unit = current_unit()
        unit.count("sums", "events", 1)
        outcome(unit, "dead", event, int(unit.read("counts", state_key(event)) or 0) + 1)


def state_key(event: Any) -> bytes:
    """The table key of an event; events without a key are counted per partition."""
    return b"none-%d" % event.partition if event.key is None else bytes(event.key)


def outcome(unit: Unit, topic: str, event: Any, count: int) -> None:
    """Write the count, send it with the event's name."""
    unit.count("sums", topic, 1)
    key = state_key(event)
    unit.write("counts", key, b"%d" % count)
    unit.write("odd", key, b"yes" if count % 2 else None)
    unit.send(Outgoing(topic, event.key, b"%b/%d" % (event.value, count)))


class PlainTopic(Topic):
    """What a stream needs of a topic, without an app around."""

    queue: Any = None

    def __init__(self, application: Application, name: str, queue: "asyncio.Queue[Any]") -> None:
        self.topics, self.batches, self.queue = [name], False, queue
        self._world = application._world  # noqa: SLF001 - the two belong together

    async def decode_record(self, record: Any) -> Any:
        """The event of a record, or an error where the seed wants it."""
        if self._world.fails_to_decode(record):
            raise Failed("decode")
        at = SimpleNamespace(tp=(record.topic, record.partition), offset=record.offset)
        return SimpleNamespace(value=record, message=at)


class PlainStream(Stream):
    """The layer's stream, without Faust's service around."""

    def __init__(self, channel: PlainTopic) -> None:
        self.channel = channel
        self._processors = []
        self._skipped_value = object()
        self._on_stream_event_in = self._on_stream_event_out = lambda *_: None

    @property
    def should_stop(self) -> bool:
        """Its process is killed instead."""
        return False

    async def maybe_start(self) -> bool:
        """There is nothing to start."""
        return False

    def _set_current_event(self, event: Any = None) -> None:
        """Nobody asks."""


class PlainAgent:
    """`async for event in stream`, begun again after each end, as Faust's supervisor does."""

    def __init__(self, application: Application, topic: str, queue: "asyncio.Queue[Any]") -> None:
        self._application = application
        self._stream = PlainStream(PlainTopic(application, topic, queue))
        self._aref = SimpleNamespace(stream=self._stream, should_stop=False)
        self.name, self.should_stop, self.app = topic, False, SimpleNamespace(should_stop=False)

    async def run(self) -> None:
        """Begin again and again."""
        while True:
            watched = Agent._watched(self, self._iterate(), self._aref)  # type: ignore[arg-type] # noqa: SLF001
            agent = asyncio.get_running_loop().create_task(watched)
            try:
                await asyncio.wait([agent])
            finally:
                agent.cancel()
            if not agent.cancelled():
                agent.exception()  # the stream was told
            await asyncio.sleep(0.01)

    async def _iterate(self) -> None:
        try:
            async for event in self._stream:
                await self._application.handle(event)
        except Left:
            async for event in self._stream:  # the loop was left amid an event, another one begins
                await self._application.handle(event)
