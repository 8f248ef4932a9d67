"""Handlers share asyncio tasks one after the other; none notices the others."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from faust_exactly_once.bounds import Bounds, Share
from faust_exactly_once.options import Options
from faust_exactly_once.runners import TURN, Runners

mark: ContextVar[str] = ContextVar("mark", default="clean")
Steps = Callable[[str], Awaitable[None]]


class RecordingRunners:
    """Runners whose units are names; keeps what happened, in its order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.tasks: dict[str, Any] = {}
        self.bounds = Bounds(Options(client_config={}))
        self.share = Share()
        self.runners = Runners(self.handle, self.bounds)

    async def handle(self, unit: Any, handler: Any) -> None:
        """Run the steps of a unit; a cancellation by itself ends nothing but the unit."""
        self.tasks[unit] = asyncio.current_task()
        try:
            await handler(unit)
        except asyncio.CancelledError:
            self.done.append(f"{unit} cancelled")
            return
        self.done.append(unit)

    def put(self, steps: Steps, *names: str) -> None:
        """Have them handled."""
        for name in names:
            self.runners.put(name, steps, self.share)  # type: ignore[arg-type]

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(10):
            await asyncio.sleep(0)


async def at_once(_: str) -> None:
    """Never waits."""


async def test_handlers_that_do_not_wait_share_one_task_in_their_order() -> None:
    """A task for each costs more than the handler itself."""
    bench = RecordingRunners()
    bench.put(at_once, "a", "b", "c")
    await bench.settle()
    assert ["a", "b", "c"] == bench.done
    assert 1 == len(set(bench.tasks.values()))
    assert (0, 0) == (bench.bounds.running, bench.share.running)


async def test_a_handler_that_waits_holds_up_no_other() -> None:
    """It keeps its task; those behind it go on in another one."""
    bench, released = RecordingRunners(), asyncio.Event()

    async def wait_for_release(_: str) -> None:
        await released.wait()

    bench.put(wait_for_release, "slow", "slow too")
    bench.put(at_once, "quick")
    await bench.settle()
    assert ["quick"] == bench.done
    assert (2, 2) == (bench.bounds.running, bench.share.running)
    released.set()
    await bench.settle()
    assert {"quick", "slow", "slow too"} == set(bench.done)
    assert 3 == len({id(task) for task in bench.tasks.values()})


async def test_what_a_handler_leaves_in_its_context_no_other_sees() -> None:
    """Context variables carry users' ids into log lines; also across a wait."""
    bench, seen = RecordingRunners(), list[str]()

    async def marks(name: str) -> None:
        seen.append(mark.get())
        mark.set(name)
        await asyncio.sleep(0)
        seen.append(mark.get())

    bench.put(marks, "a", "b")
    await bench.settle()
    bench.put(marks, "c")
    await bench.settle()
    assert ["clean", "clean", "clean"] == [one for one in seen if one == "clean"]
    assert ["a", "b", "c"] == [one for one in seen if one != "clean"]
    assert "clean" == mark.get()


async def test_a_time_out_in_a_handler_is_its_own() -> None:
    """asyncio.timeout cancels the task that it is in: the next handler of that task hears nothing of it."""
    bench, timed_out = RecordingRunners(), list[str]()

    async def times_out(name: str) -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            timed_out.append(name)

    bench.put(times_out, "a")
    bench.put(at_once, "b")
    await bench.runners.grace(60)
    bench.put(times_out, "c")
    await bench.runners.grace(60)
    assert (["a", "c"], ["b", "a", "c"]) == (timed_out, bench.done)


async def test_a_handler_that_cancels_itself_takes_no_other_with_it() -> None:
    """Its task ends with it, whether it waits after that or not; what is ready goes on in another."""
    bench = RecordingRunners()

    async def cancels_itself(name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if name == "waits":
            await asyncio.sleep(0)

    bench.put(cancels_itself, "waits", "does not")
    bench.put(at_once, "next", "last")
    await bench.settle()
    bench.put(at_once, "later")
    await bench.settle()
    assert ["does not", "next", "last", "later"] == [name for name in bench.done if name != "waits cancelled"]
    assert "waits cancelled" in bench.done
    assert bench.tasks["waits"] is not bench.tasks["does not"] is not bench.tasks["next"]
    assert (0, 0) == (bench.bounds.running, bench.share.running)


async def test_many_that_never_wait_leave_the_event_loop_its_turns() -> None:
    """Heartbeats and pages must not wait for a backlog."""
    bench, turns = RecordingRunners(), 0
    bench.put(at_once, *(str(number) for number in range(TURN * 5)))
    while len(bench.done) < TURN * 5:
        await asyncio.sleep(0)
        turns += 1
    assert 5 <= turns <= 8


async def test_the_end_cancels_what_runs_and_forgets_what_is_ready() -> None:
    """An epoch that is over handles nothing more; the worker has its places back."""
    bench = RecordingRunners()

    async def for_ever(_: str) -> None:
        await asyncio.Event().wait()

    bench.put(for_ever, "a")
    await bench.settle()
    bench.put(at_once, "never")
    bench.runners.cancel()
    await bench.settle()
    assert ["a cancelled"] == bench.done
    assert (0, 0) == (bench.bounds.running, bench.share.running)


async def test_a_grace_is_over_as_soon_as_nothing_runs_or_the_time_is_up() -> None:
    """A revoked task waits for its handlers, but not for ever (point 7)."""
    bench, released = RecordingRunners(), asyncio.Event()

    async def wait_for_release(_: str) -> None:
        await released.wait()

    await bench.runners.grace(60)
    bench.put(wait_for_release, "a")
    await bench.runners.grace(0.01)
    assert [] == bench.done
    asyncio.get_running_loop().call_later(0.01, released.set)
    await bench.runners.grace(60)
    assert ["a"] == bench.done


async def test_many_that_wait_begin_within_few_turns_of_the_event_loop() -> None:
    """One a turn, a burst of calls to a gateway would begin late, and each turn has its price."""
    bench, released, begun, turns = RecordingRunners(), asyncio.Event(), list[str](), 0

    async def waits(name: str) -> None:
        begun.append(name)
        await released.wait()

    bench.put(waits, *(str(number) for number in range(320)))
    while len(begun) < 320:
        await asyncio.sleep(0)
        turns += 1
    assert turns <= 30
    assert [str(number) for number in range(320)] == begun
    released.set()
    await bench.runners.grace(60)
    assert (0, 0) == (bench.bounds.running, bench.share.running)
