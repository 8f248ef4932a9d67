"""What plain agents get, what they are refused."""

import asyncio
from typing import Any

import faust
import pytest

import faust_exactly_once as exactly_once
from faust_exactly_once import Options, SetupRefused
from faust_exactly_once.agent import Agent
from faust_exactly_once.agent_handler import AgentHandler, AgentLeft, fail, finish
from faust_exactly_once.errors import ExactlyOnceError
from faust_exactly_once.stream import Stream
from faust_exactly_once.units import set_current_unit


@pytest.fixture
def app() -> Any:
    """An app on the layer that never starts."""
    app = faust.App("streams", **exactly_once.settings(["kafka://127.0.0.1:1"]))
    exactly_once.install(app, Options(client_config={"bootstrap.servers": "127.0.0.1:1"}))
    return app


REFUSED = (
    "take", "take_events", "take_with_timestamp", "noack_take", "noack", "through", "group_by", "combine",
    "join", "left_join", "inner_join", "outer_join",
)  # fmt: skip


@pytest.mark.parametrize("method", REFUSED)
async def test_what_has_no_unit_is_refused(method: str, app: Any) -> None:
    """Buffering, re-partitioning, joining end the worker instead of losing events in silence."""
    stream = app.stream(app.topic("t"))
    assert isinstance(stream, Stream)
    with pytest.raises(SetupRefused, match="iterate it event by event"):
        getattr(stream, method)(1)


async def test_only_topics_can_be_streamed(app: Any) -> None:
    """A channel in memory has no offsets to commit."""
    with pytest.raises(SetupRefused, match="iterate a topic of this app"):
        aiter(app.stream(app.channel()))


@pytest.mark.parametrize("method", ["ask", "ask_nowait", "map", "kvmap", "join", "kvjoin"])
def test_agents_do_not_wait_for_replies(method: str, app: Any) -> None:
    """A reply comes after the unit has ended."""

    async def iterate(stream: Any) -> None: ...

    agent = app.agent(app.topic("t"))(iterate)
    assert isinstance(agent, Agent)
    with pytest.raises(SetupRefused, match="use cast or send"):
        getattr(agent, method)(1)


class Queue:
    """Runs a handler as its key queue would: in an asyncio task with a unit, as often as it fails."""

    def __init__(self, *, tries: int = 3) -> None:
        self.unit: Any = object()
        self.failures: list[BaseException] = []
        self.handler = AgentHandler(self.decode)
        self._tries = tries
        self.task = asyncio.create_task(self._run())

    async def decode(self, record: Any) -> Any:
        """The record itself."""
        return record

    async def _run(self) -> None:
        self.unit = _Unit()
        set_current_unit(self.unit)
        try:
            for _ in range(self._tries):
                try:
                    return await self.handler.run("event")
                except Exception as exc:
                    self.failures.append(exc)
        finally:
            self.unit.ended()


class _Unit:
    finished = False
    ended: Any = None


async def test_a_finished_turn_ends_its_lane() -> None:
    """The stream takes the event with its unit, finishes; the handler is over."""
    queue = Queue()
    assert await queue.handler.ready()
    assert ("event", queue.unit) == (queue.handler.event, queue.handler.unit)
    finish(queue.handler.take())
    assert not await queue.handler.ready()
    assert [] == queue.failures


async def test_a_failed_turn_comes_again_until_its_lane_gives_up() -> None:
    """Each failure is the queue's to judge; after the last one the handler is over."""
    queue = Queue(tries=2)
    for _ in range(2):
        assert await queue.handler.ready()
        outcome = queue.handler.take()
        fail(outcome, KeyError("as the test wants"))
        fail(outcome, ValueError("the first one counts"))
    assert not await queue.handler.ready()
    assert [KeyError, KeyError] == [type(failure) for failure in queue.failures]


async def test_an_old_outcome_settles_nothing() -> None:
    """A generator that is closed late does not fail the try after its own."""
    queue = Queue()
    assert await queue.handler.ready()
    old = queue.handler.take()
    fail(old, RuntimeError("first"))
    assert await queue.handler.ready()
    new = queue.handler.take()
    fail(old, GeneratorExit())
    assert not new.done()
    finish(new)
    assert not await queue.handler.ready()
    assert 1 == len(queue.failures)


@pytest.mark.parametrize("end", [GeneratorExit(), asyncio.CancelledError()])
async def test_an_agent_that_went_away_failed(end: BaseException) -> None:
    """Neither a closed loop nor a cancelled agent is taken for success."""
    queue = Queue(tries=1)
    assert await queue.handler.ready()
    fail(queue.handler.take(), end)
    assert not await queue.handler.ready()
    assert isinstance(queue.failures[0], AgentLeft)
    assert isinstance(queue.failures[0], ExactlyOnceError)


async def test_the_end_of_the_incarnation_cancels_the_agent_amid_the_event() -> None:
    """The queue is cancelled, so is the agent; one that has gone on is left alone."""
    queue = Queue()

    taken = asyncio.Event()

    async def agent() -> None:
        assert await queue.handler.ready()
        queue.handler.take()
        taken.set()
        await asyncio.Event().wait()

    working = asyncio.create_task(agent())
    await taken.wait()
    queue.task.cancel()
    await asyncio.wait([working, queue.task])
    assert working.cancelled()


async def test_an_agent_that_has_finished_is_not_cancelled() -> None:
    """The end of the epoch comes just after the event was finished."""
    queue = Queue()
    assert await queue.handler.ready()
    finish(queue.handler.take())
    queue.task.cancel()
    await asyncio.wait([queue.task])
    await asyncio.sleep(0)  # would raise here


async def test_a_turn_whose_lane_never_began_ends_with_the_incarnation() -> None:
    """The stream does not wait for an event that its task will not hand out any more."""
    handler = AgentHandler(Queue(tries=0).decode)
    waiting = asyncio.create_task(handler.ready())
    await asyncio.sleep(0)
    handler.end()
    assert not await waiting
