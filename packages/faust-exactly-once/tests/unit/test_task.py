"""One task epoch of a task where the model's random walk is unlikely to come by."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError
from layer_kit.memory_kafka import Record
from layer_kit.running_task import TP, RunningTask
from layer_kit.virtual_time import VirtualTimeLoop

from faust_exactly_once.batch import BatchSkipped
from faust_exactly_once.database import Identity, PartitionStore
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.errors import (
    ExactlyOnceError,
    FetchFailed,
    NoUnit,
    OutcomeUnknown,
    RecordRefused,
    StoreFailed,
)
from faust_exactly_once.key_queues import HandlerFailed
from faust_exactly_once.units import Outgoing, current_unit


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    yield loop
    loop.end()


@pytest.fixture
def bench(loop: VirtualTimeLoop) -> RunningTask:
    return RunningTask(loop)


async def at_once(event: Record) -> None:
    current_unit().write("t", event.key or b"", event.value)
    current_unit().send(Outgoing("results", event.key, event.value))


async def never(event: Record) -> None:
    await asyncio.Event().wait()


def test_commits_keep_their_distance_where_one_is_set(loop: VirtualTimeLoop) -> None:
    """Who spares the brokers waits; what comes after a rest commits at once (point 11)."""
    bench = RunningTask(loop, commit_distance_ms=500)
    bench.handle(at_once, b"a")
    bench.commit()
    bench.handle(at_once, b"b")
    loop.settle(0.4)
    assert [] == bench.held.waiting
    loop.settle(0.1)
    bench.commit()
    loop.settle(0.6)
    bench.handle(at_once, b"c")
    bench.commit()
    assert 3 == len(bench.kafka.transactions)


@pytest.mark.parametrize("ending", ["commits but the store fails", "is fenced", "loses the membership"])
def test_after_a_failed_commit_the_last_commit_sends_nothing_again(bench: RunningTask, ending: str) -> None:
    """A commit that failed during a revocation may have happened: nothing of it is sent twice."""
    bench.handle(at_once, b"a")
    closing = bench.start(bench.task.close(grace_s=1.5, last_commit_s=1))
    bench.commit(ending)
    bench.loop.settle(3)
    assert [] == bench.held.waiting
    assert closing.done()


def test_a_failure_during_the_grace_does_not_commit_past_what_it_drops(bench: RunningTask) -> None:
    """Revocation waits for handlers, one of them fails for good, the task is dropped: its offset stays."""
    bench.handle(never, b"a")
    closing = bench.start(bench.task.close(grace_s=1.5, last_commit_s=1))
    bench.start(bench.task.close(grace_s=0, last_commit_s=0))
    bench.loop.settle(3)
    assert closing.done()
    assert [] == bench.held.waiting


def test_a_commit_that_ends_after_the_task_was_dropped_gives_nothing_back_twice(bench: RunningTask) -> None:
    """Bytes held are counted once, whoever comes first."""
    bench.handle(at_once, b"a")
    bench.handle(at_once, b"b")
    bench.start(bench.task.close(grace_s=1.5, last_commit_s=1))
    bench.commit()
    assert 1 == len(bench.held.waiting), "the last commit, of the second event"
    bench.start(bench.task.close(grace_s=0, last_commit_s=0))
    bench.commit()
    bench.loop.settle(3)
    assert 0 == bench.layer.state.bounds.held_bytes


def test_a_slow_last_commit_is_given_up_but_its_thread_waited_for(bench: RunningTask) -> None:
    """Closing is bounded; files, offsets are not touched by others before the thread has returned."""
    bench.handle(at_once, b"a")
    closing = bench.start(bench.task.close(grace_s=1.5, last_commit_s=1))
    ended = bench.start(bench.task.ended())
    bench.loop.settle(5)
    assert (True, False) == (closing.done(), ended.done())
    bench.commit()
    assert ended.done()
    assert {TP: 1} == bench.kafka.committed


@pytest.mark.parametrize("leave_out", ["never asked for", "cancelled half-way"])
def test_an_agent_that_leaves_out_events_gets_them_again(loop: VirtualTimeLoop, leave_out: str) -> None:
    """No commit passes an event that no handler saw: the task reopens instead."""
    bench = RunningTask(loop, max_running=1)
    batch = bench.fetch(b"a", b"b")
    if leave_out == "cancelled half-way":
        half = bench.start(batch.each(never))
        half.cancel()
        bench.loop.settle()
    bench.handle(at_once, b"c")
    assert isinstance(bench.assigned.failure, BatchSkipped)
    assert [] == bench.held.waiting


def test_a_topic_runs_no_more_handlers_than_its_share(loop: VirtualTimeLoop) -> None:
    """Its next event begins when one of its own ends; the handlers that are left are other topics'."""
    bench = RunningTask(loop, max_running=3, max_running_of={TP[0]: 2})
    bounds, ends = bench.layer.state.bounds, asyncio.Event()
    began: list[bytes | None] = []

    async def waits(event: Record) -> None:
        began.append(event.key)
        if event.key in {b"a", b"b"}:
            await ends.wait()

    batch = bench.start(bench.fetch(b"a", b"b", b"c", b"d").each(waits))
    assert ([b"a", b"b"], False) == (began, batch.done())
    assert not bounds.is_full(bounds.share("another"))
    ends.set()
    loop.settle()
    assert ([b"a", b"b", b"c", b"d"], True) == (began, batch.done())
    assert (0, 0) == (bounds.running, bench.source.share.running)


def test_what_a_closed_task_had_ready_gives_its_share_back(loop: VirtualTimeLoop) -> None:
    """Else the topic would have fewer handlers after every rebalance, in the end none."""
    bench = RunningTask(loop, max_running_of={TP[0]: 3})
    bench.handle(never, b"a")
    admitted = bench.loop.create_task(bench.fetch(b"d").each(never))
    bench.loop.run_until_complete(admitted)  # no turn of the loop for its handler
    closing = bench.start(bench.task.close(grace_s=0, last_commit_s=0))
    bench.loop.settle()
    assert closing.done()
    assert (0, 0) == (bench.layer.state.bounds.running, bench.source.share.running)


def test_a_batch_is_handed_out_once(bench: RunningTask) -> None:
    """Its second use would run handlers twice."""
    batch = bench.fetch(b"a")
    bench.start(batch.each(at_once)).result()
    with pytest.raises(ExactlyOnceError, match="once"):
        bench.start(batch.each(at_once)).result()


def test_a_batch_of_an_old_incarnation_is_dropped(bench: RunningTask) -> None:
    """What was fetched before the end comes again to the next owner."""
    batch = bench.fetch(b"a")
    bench.start(bench.task.close(grace_s=0, last_commit_s=0))
    bench.start(batch.each(at_once)).result()
    assert (0, 0) == (len(batch.events) - 1, bench.task.waiting_units())


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_handler_cancelled_from_inside_is_tried_again(loop: VirtualTimeLoop, tries: int) -> None:
    """A time-out or a cancelled helper inside a handler never leaves its key queue stuck (point 9e)."""
    bench = RunningTask(loop, handler_tries=3)
    count = 0

    async def cancelled(event: Record) -> None:
        nonlocal count
        count += 1
        if count <= tries:
            raise asyncio.CancelledError
        await at_once(event)

    bench.handle(cancelled, b"a", b"a")
    bench.loop.settle(2)
    assert isinstance(bench.assigned.failure, HandlerFailed) == (tries == 3)
    assert (1 if tries < 3 else 0) == len(bench.held.waiting)


def test_a_cancelled_answer_to_a_failure_stops_the_task(loop: VirtualTimeLoop) -> None:
    """If even the application's answer is cancelled, the task fails instead of waiting for ever."""

    async def cancelled(event: Any, exc: Exception | None = None) -> None:
        raise asyncio.CancelledError

    bench = RunningTask(loop, handler_tries=1, on_handler_failure=cancelled)
    bench.handle(cancelled, b"a")
    assert isinstance(bench.assigned.failure, HandlerFailed)


def test_a_handler_that_outlives_its_incarnation_changes_nothing(bench: RunningTask) -> None:
    """It has no unit any more, whatever it catches (point 7)."""
    refused: list[NoUnit] = []
    started: list[int] = []

    async def stubborn(event: Record) -> None:
        started.append(event.offset)
        unit = current_unit()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                current_unit()
            except NoUnit as exc:
                refused.append(exc)
        unit.event = event

    bench.handle(stubborn, b"a", b"a")
    bench.start(bench.task.close(grace_s=1.5, last_commit_s=1))
    bench.loop.settle(3)
    assert 1 == len(refused)
    assert [0] == started, "the next event of the key is the next owner's"
    task = bench.task
    assert (0, 0) == (bench.layer.state.bounds.running, task.waiting_units())
    assert not any(task.uncommitted.values())
    assert [] == bench.held.waiting


def test_a_unit_is_closed_when_its_handler_returns(bench: RunningTask) -> None:
    """What a handler left running in the background cannot write into a unit that may be committed."""
    late: list[asyncio.Task[None]] = []

    async def background() -> None:
        await asyncio.sleep(0.01)
        current_unit()

    async def leaves_something(event: Record) -> None:
        late.append(asyncio.get_running_loop().create_task(background()))

    bench.handle(leaves_something, b"a")
    bench.loop.settle(1)
    with pytest.raises(NoUnit, match="has ended"):
        late[0].result()


def test_an_emptied_unit_shows_the_value_before_it(bench: RunningTask) -> None:
    """A failed try leaves no trace: neither over an uncommitted value, nor over one committed meanwhile."""
    seen: list[bytes | None] = []
    tries = asyncio.Event()

    async def first_then_failing(event: Record) -> None:
        unit = current_unit()
        seen.append(unit.read("t", b"k"))
        unit.write("t", b"k", b"%d" % event.offset)
        unit.write("t", b"new", b"n")
        unit.send(Outgoing("results", None, b"%d" % event.offset))
        if event.offset == 1:
            if len(seen) == 3:
                await tries.wait()
            raise RuntimeError("as the test wants")

    bench.handle(first_then_failing, b"k", b"k")
    bench.loop.settle(1)
    assert [None, b"0", b"0"] == seen
    bench.commit()  # of the first unit, while the second one's write lies over it
    tries.set()
    bench.loop.settle(1)
    assert [None, b"0", b"0", b"0"] == seen
    assert isinstance(bench.assigned.failure, HandlerFailed)
    assert b"0" == bench.task.committed_value("t", b"k")
    assert not any(bench.task.uncommitted.values())


def test_an_unreadable_database_ends_the_incarnation_not_the_event(loop: VirtualTimeLoop) -> None:
    """No handler can make up for a broken disk, no application dead-letters an event because of it."""

    class Broken(PartitionStore):
        def _live(self) -> Any:
            raise StoreFailed("Corruption")

    async def reads(event: Record) -> None:
        current_unit().read("t", b"k")

    broken = Broken(Path("unused"))
    broken.identity = Identity("c", "t", 0)
    bench = RunningTask(loop, broken)
    bench.handle(reads, b"a")
    assert isinstance(bench.assigned.failure, StoreFailed)


def test_aborted_transactions_are_sent_again_a_bounded_number_of_times(bench: RunningTask) -> None:
    """Handlers do not run again (point 9a); what never succeeds ends the epoch."""
    bench.handle(at_once, b"a")
    for _ in range(5):
        bench.commit("aborts")
        bench.loop.settle(1)
    assert [] == bench.held.waiting
    assert bench.assigned.failure is not None
    assert [] == bench.kafka.transactions


def test_a_topic_that_a_broker_has_not_heard_of_does_not_end_the_task(bench: RunningTask) -> None:
    """The same units are sent again until the producer says that it is refused for good; nothing reopens."""
    bench.handle(at_once, b"a")
    for _ in range(20):
        bench.commit("knows no topic")
        bench.loop.settle(1)
    assert bench.assigned.failure is None
    bench.commit()
    bench.loop.settle(1)
    assert {TP: 1} == bench.kafka.committed


def test_a_refused_record_does_not_hold_up_the_units_before_it(bench: RunningTask) -> None:
    """The units before it are committed, then that one is tried alone; still refused, the worker stops."""
    bench.kafka.refused = {b"events-1"}
    bench.handle(at_once, b"a", b"b", b"c")
    for _ in range(20):
        if bench.held.waiting:
            bench.commit()
        bench.loop.settle(1)
    assert isinstance(bench.assigned.failure, RecordRefused)
    assert {TP: 1} == bench.kafka.committed


def test_bytes_held_include_what_handlers_send_or_write(bench: RunningTask) -> None:
    """`max_waiting_bytes` bounds a worker's memory, whatever its handlers make of small events (point 10)."""

    async def large(event: Record) -> None:
        current_unit().write("t", b"k", bytes(1000))
        current_unit().send(Outgoing("results", b"k", bytes(1000)))

    bench.handle(large, b"k")
    assert 2000 < bench.layer.state.bounds.held_bytes


def test_what_a_fetch_brings_for_an_old_incarnation_is_dropped(bench: RunningTask) -> None:
    """The consumer stood where it stood for a task that has ended meanwhile."""
    event = bench.kafka.append(TP, b"a", False)
    other = bench.task.epoch + 1
    assert [] == bench.layer.dispatcher.batches({TP: Fetched(other, 0, [event], 1)})
    assert 0 == bench.source.position


def test_a_fetch_that_leaves_a_hole_reopens_the_task(bench: RunningTask) -> None:
    """What somebody else took from the consumer is never passed by a commit: it is fetched again."""
    events = [bench.kafka.append(TP, b"a", False) for _ in range(3)]
    assert [] == bench.layer.dispatcher.batches({TP: Fetched(bench.task.epoch, 2, events[2:], 3)})
    assert isinstance(bench.assigned.failure, BatchSkipped)
    assert 0 == bench.source.position


@pytest.mark.parametrize("error", [OffsetOutOfRangeError({}), CorruptRecordException("crc")])
def test_a_partition_that_cannot_be_read_fails_its_task_by_name(bench: RunningTask, error: Exception) -> None:
    """Other partitions go on; this one opens again, where an offset out of range is proven or not."""
    assert [] == bench.layer.dispatcher.batches({TP: Fetched(bench.task.epoch, 0, [], 0, error)})
    assert isinstance(bench.assigned.failure, FetchFailed)
    assert "events-0" in str(bench.assigned.failure)


def test_an_agent_stopped_amid_a_batch_reopens_the_task(bench: RunningTask) -> None:
    """The rest of the batch comes again, although no later batch ever comes."""
    bench = RunningTask(bench.loop, max_running=1)
    admitting = bench.start(bench.fetch(b"a", b"b").each(never))
    admitting.cancel()
    bench.loop.settle()
    assert isinstance(bench.assigned.failure, BatchSkipped)


def test_a_task_with_enough_waiting_units_is_not_fetched(loop: VirtualTimeLoop) -> None:
    """Each bound of point 10 stops the fetching: units of a task, bytes of a worker, batches of a source."""
    assert {TP} == set(RunningTask(loop).layer.dispatcher.wanted())
    many = RunningTask(loop, max_waiting_units=2)
    many.handle(never, b"a", b"b")
    large = RunningTask(loop, max_waiting_bytes=3)
    large.handle(never, b"a")
    queued = RunningTask(loop)
    queued.fetch(b"a")
    queued.fetch(b"a")
    assert [{}, {}, {}] == [bench.layer.dispatcher.wanted() for bench in (many, large, queued)]


def test_the_unknown_outcome_of_a_commit_is_told_to_the_layer(bench: RunningTask) -> None:
    """The committed offset decides at the next opening (point 9b)."""
    bench.handle(at_once, b"a")
    bench.commit("times out after committing")
    assert isinstance(bench.assigned.failure, OutcomeUnknown)
    assert {TP: 1} == bench.kafka.committed
