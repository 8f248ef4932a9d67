"""Every step of a commit, failing in every way it can: what Kafka holds then, what the worker does about it.

A cell is `step-fault`: {begin, send, confirm, offsets, commit, store} x {fenced, wrong generation, retriable,
refused, time-out, crash}; a further word tells variants apart. All is real from the producer's wrapper to the
layer with its assigned_tasks, recovery, RocksDB; librdkafka's calls are scripted, time is virtual.

Events of three keys are committed together, the fault strikes, passes; then the first key has a fourth one.
The end is the same for all: each event has one result, one metric; the committed offset is the log's end; the
database is the fold of the changelog. What is refused for good stops the worker before that, after the units
in front of it are committed. Where librdkafka cannot meet a fault at a step, the cell is what comes nearest:

- begin asks no broker. Fenced, refused: it repeats a fatal error from before; or nobody notices before the
  records are sent. Retriable, time-out: another call of the producer is still under way.
- wrong generation: only the offsets carry it. The group moves on at the step, then the offsets of this commit
  are refused, after them those of the next one.
- send only queues. Retriable, time-out: its queue is full, once, always.
- store: RocksDB knows neither producers nor groups. Fenced, wrong generation: it happens in Kafka meanwhile.
  Time-out: the write outlasts the revocation of its task.

Kafka Streams tests a part of the matrix by name in `StreamsProducerTest`: fenced, a fatal error, any other
error at begin, send, send offsets, commit, abort; a time-out of init.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import KafkaError
from layer_kit.scripted_faults import (
    arrives,
    crash,
    disk_full,
    fatal_unsaid,
    fenced,
    full,
    meets,
    moves_on,
    no_answer,
    passes,
    raises,
    record_refused,
    record_too_large,
    revoked,
    sent,
    sent_then,
    unconfirmed,
)
from layer_kit.scripted_librdkafka import CONFLICT, FENCED, TIMED_OUT
from layer_kit.scripted_worker import CHANGELOG, CHANGELOG_OF_SUMS, EVENTS, SUMS, TABLE, Step, World

from faust_exactly_once.counters import RECORD
from faust_exactly_once.errors import RecordRefused, StoreFailed

STEPS = ("begin", "send", "confirm", "offsets", "commit", "store")
FAULTS = ("fenced", "wrong generation", "retriable", "refused", "time-out", "crash")
NO_RIGHT = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
NO_GROUP_RIGHT = KafkaError.GROUP_AUTHORIZATION_FAILED
abortable = raises(KafkaError.UNKNOWN, txn_requires_abort=True)


class At(NamedTuple):
    """What happens at the next calls of a name; "now": before the commit."""

    call: str
    steps: Sequence[Step]


def at(call: str, *steps: Step) -> At:
    """What happens at the next calls of this name."""
    return At(call, steps)


class Cell(NamedTuple):
    """A fault with what comes of it: how each commit ended, of the three events, then of the fourth one."""

    faults: Sequence[At]
    attempts: str
    left: str
    handled: int
    worker: str
    fourth: str = "committed"


# How a commit ends, in short.
OK, AGAIN, UNKNOWN, FENCE = "committed", "TransactionAborted", "OutcomeUnknown", "TaskFenced"
MOVED, REFUSED, BROKEN, GONE = "MembershipLost", "RecordRefused", "StoreFailed", "crash"
# What the first attempt left in Kafka.
NOTHING, OPEN, ABORTED, COMMITTED = "nothing", "open", "aborted", "committed"
# What the worker does.
GOES_ON = "goes on: librdkafka's call is resumed, or what happened is no concern of this commit"
SENDS_AGAIN = "sends the same commit batch again"
REOPENS = "ends the epoch, reopens"
ASKS = "ends the epoch, has its membership confirmed, reopens"
WAITS = "ends the epoch, opens no other before the group assigns anew"
STOPS = "stops, naming the error"
ANEW = "is a new process on what Kafka, the disk hold"

# The first unit of three, then the second with the third, then the second alone, again and again.
NARROWED = f"{REFUSED} {OK} {REFUSED}" + 5 * f" {REFUSED}"

MATRIX = {
    "begin-fenced": Cell(
        [at("begin", raises(FENCED, fatal=True))], f"{FENCE} {OK}", NOTHING, 2, ASKS),
    "begin-fenced, unnoticed": Cell(
        [at("begin", fenced)], f"{FENCE} {OK}", NOTHING, 2, ASKS),
    "begin-wrong generation": Cell(
        [at("begin", moves_on)], f"{MOVED} {OK}", ABORTED, 2, WAITS),
    "begin-retriable": Cell(
        [at("begin", raises(CONFLICT, retriable=True))], f"{UNKNOWN} {OK}", NOTHING, 2, ASKS),
    "begin-refused": Cell(
        [at("begin", raises(NO_RIGHT, fatal=True)), at("init", *2 * [raises(NO_RIGHT, fatal=True)])],
        f"{UNKNOWN} {OK}", NOTHING, 2, ASKS),
    "begin-time-out": Cell(
        [at("begin", raises(TIMED_OUT))], f"{UNKNOWN} {OK}", NOTHING, 2, ASKS),
    "begin-crash": Cell(
        [at("begin", crash)], f"{GONE} {OK}", NOTHING, 2, ANEW),

    "send-fenced": Cell(
        [at("produce_batch", sent, meets(FENCED, fatal=True))], f"{FENCE} {OK}", OPEN, 2, ASKS),
    "send-fenced, unnoticed": Cell(
        [at("produce_batch", sent, fenced)], f"{FENCE} {OK}", ABORTED, 2, ASKS),
    "send-wrong generation": Cell(
        [at("produce_batch", moves_on)], f"{MOVED} {OK}", ABORTED, 2, WAITS),
    "send-retriable": Cell(
        [at("produce", passes, sent_then(full))], f"{AGAIN} {OK}", ABORTED, 1, SENDS_AGAIN),
    "send-refused": Cell(
        [at("now", record_too_large)], NARROWED, ABORTED, 1, STOPS),
    "send-refused, while it sends": Cell(
        [at("now", record_refused), at("produce_batch", *50 * [passes, sent])], NARROWED, ABORTED, 1, STOPS),
    "send-time-out": Cell(
        [at("produce", *5 * [full])], 5 * f"{AGAIN} " + OK, NOTHING, 2, REOPENS),
    "send-crash": Cell(
        [at("produce_batch", passes, sent_then(crash))], f"{GONE} {OK}", OPEN, 2, ANEW),

    "confirm-fenced": Cell(
        [at("produce_batch", sent), at("flush", fenced)], f"{FENCE} {OK}", ABORTED, 2, ASKS),
    "confirm-fenced, reported": Cell(
        [at("deliver", passes, raises(KafkaError.INVALID_PRODUCER_EPOCH))], f"{FENCE} {OK}", OPEN, 2, ASKS),
    "confirm-fenced, unsaid": Cell(
        [at("flush", fatal_unsaid)], f"{UNKNOWN} {OK}", NOTHING, 2, ASKS),
    "confirm-wrong generation": Cell(
        [at("flush", moves_on)], f"{MOVED} {OK}", ABORTED, 2, WAITS),
    "confirm-retriable": Cell(
        [at("deliver", passes, raises(KafkaError.NOT_ENOUGH_REPLICAS, txn_requires_abort=True))],
        f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "confirm-refused": Cell(
        [at("now", record_refused)], NARROWED, ABORTED, 1, STOPS),
    "confirm-time-out": Cell(
        [at("produce_batch", sent), at("flush", unconfirmed)], f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "confirm-crash": Cell(
        [at("flush", sent_then(crash))], f"{GONE} {OK}", OPEN, 2, ANEW),

    "offsets-fenced": Cell(
        [at("offsets", fenced)], f"{FENCE} {OK}", ABORTED, 2, ASKS),
    "offsets-fenced, abortable to librdkafka": Cell(
        [at("offsets", raises(FENCED, txn_requires_abort=True))], f"{FENCE} {OK}", OPEN, 2, ASKS),
    "offsets-wrong generation": Cell(
        [at("offsets", moves_on)], f"{MOVED} {OK}", ABORTED, 2, WAITS),
    "offsets-wrong generation, by mistake": Cell(
        [at("offsets", raises(KafkaError.UNKNOWN_MEMBER_ID, txn_requires_abort=True))],
        f"{MOVED} {OK}", ABORTED, 2, ASKS),
    "offsets-retriable": Cell(
        [at("offsets", raises(KafkaError.NOT_COORDINATOR, retriable=True))], OK, COMMITTED, 1, GOES_ON),
    "offsets-refused": Cell(
        [at("offsets", *7 * [raises(NO_GROUP_RIGHT, txn_requires_abort=True)])],
        7 * f"{AGAIN} " + OK, ABORTED, 2, REOPENS),
    "offsets-time-out": Cell(
        [at("offsets", raises(TIMED_OUT, retriable=True))], f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "offsets-time-out, for ever": Cell(
        [at("offsets", no_answer)], f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "offsets-crash": Cell(
        [at("offsets", crash)], f"{GONE} {OK}", OPEN, 2, ANEW),
    "offsets-crash, after": Cell(
        [at("after offsets", crash)], f"{GONE} {OK}", OPEN, 2, ANEW),

    "commit-fenced": Cell(
        [at("commit", fenced)], f"{FENCE} {OK}", ABORTED, 2, ASKS),
    "commit-wrong generation": Cell(
        [at("commit", moves_on)], OK, COMMITTED, 1, WAITS, f"{MOVED} {OK}"),
    "commit-retriable": Cell(
        [at("commit", raises(KafkaError.NOT_COORDINATOR, retriable=True))], OK, COMMITTED, 1, GOES_ON),
    "commit-retriable, after": Cell(
        [at("after commit", raises(KafkaError.NOT_COORDINATOR, retriable=True))], OK, COMMITTED, 1, GOES_ON),
    "commit-retriable, aborted": Cell(
        [at("commit", abortable)], f"{AGAIN} {OK}", ABORTED, 1, SENDS_AGAIN),
    "commit-refused": Cell(
        [at("commit", raises(NO_RIGHT, fatal=True)), at("init", *2 * [raises(NO_RIGHT, fatal=True)])],
        f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "commit-time-out": Cell(
        [at("commit", raises(TIMED_OUT, retriable=True))], f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "commit-time-out, committed": Cell(
        [at("after commit", raises(TIMED_OUT, retriable=True))], UNKNOWN, COMMITTED, 1, ASKS),
    "commit-time-out, committed late": Cell(
        [at("commit", raises(TIMED_OUT, retriable=True)), at("init", arrives)], UNKNOWN, OPEN, 1, ASKS),
    "commit-crash": Cell(
        [at("commit", crash)], f"{GONE} {OK}", OPEN, 2, ANEW),
    "commit-crash, after": Cell(
        [at("after commit", crash)], GONE, COMMITTED, 1, ANEW),

    "store-fenced": Cell(
        [at("write", fenced)], OK, COMMITTED, 1, ASKS, f"{FENCE} {OK}"),
    "store-wrong generation": Cell(
        [at("write", moves_on)], OK, COMMITTED, 1, WAITS, f"{MOVED} {OK}"),
    "store-retriable": Cell(
        [at("write", disk_full)], BROKEN, COMMITTED, 1, REOPENS),
    "store-refused": Cell(
        [at("write", *3 * [disk_full])], BROKEN, COMMITTED, 1, STOPS),
    "store-time-out": Cell(
        [at("write", revoked)], OK, COMMITTED, 1, WAITS),
    "store-crash": Cell(
        [at("write", crash)], GONE, COMMITTED, 1, ANEW),
    "store-crash, after": Cell(
        [at("after write", crash)], GONE, COMMITTED, 1, ANEW),

    # Beside the six steps: the abort that follows a failed one, the opening of the next epoch.
    "abort-fenced": Cell(
        [at("commit", abortable), at("abort", fenced)], f"{FENCE} {OK}", ABORTED, 2, ASKS),
    "abort-refused": Cell(
        [at("commit", abortable), at("abort", raises(KafkaError.INVALID_TXN_STATE, fatal=True))],
        f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "abort-time-out": Cell(
        [at("commit", abortable), at("abort", raises(TIMED_OUT, retriable=True))],
        f"{UNKNOWN} {OK}", OPEN, 2, ASKS),
    "open-fenced": Cell(
        [at("commit", fenced), at("init", raises(FENCED, fatal=True))], f"{FENCE} {OK}", ABORTED, 2, ASKS),
    "open-time-out": Cell(
        [at("commit", fenced), at("init", *3 * [raises(TIMED_OUT, retriable=True)])],
        f"{FENCE} {OK}", ABORTED, 2, ASKS),
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A worker whose one task is open, idle."""
    world = World(tmp_path, monkeypatch)
    world.go_on()
    world.left = ""
    world.attempts.clear()
    yield world
    world.end()


def test_the_matrix_has_every_cell() -> None:
    """Six faults at each of six steps."""
    cells = {tuple(name.split(",")[0].split("-", 1)) for name in MATRIX}
    assert set(product(STEPS, FAULTS)) <= cells


@pytest.mark.parametrize("name", MATRIX)
def test_a_fault_at_a_step_of_the_commit_neither_loses_nor_doubles_anything(name: str, world: World) -> None:
    """What the table says happens; in the end every event has its one result, whatever happened."""
    cell = MATRIX[name]
    for call, steps in cell.faults:
        world.script[call].extend(steps)
    world.happens("now")
    assert cell.attempts == run(world, b"a", b"b", b"c")
    assert (cell.left, cell.handled) == (world.left, max(world.handled.values()))
    if cell.worker == STOPS:
        assert_it_stopped_by_name(world)
        repair(world)
    run(world)
    assert cell.fourth == run(world, b"a")
    assert cell.worker == what_the_worker_did(world)
    assert_all_is_committed_once(world)


def run(world: World, *keys: bytes) -> str:
    """New events, until all are committed or the worker stops; a task that waits for the group is assigned.

    Returns:
        how each commit ended.
    """
    before = len(world.attempts)
    for key in keys:
        world.kafka.append(EVENTS, key, marker=False)
    world.go_on()
    if world.stands_still():
        world.rejoin()
        world.go_on()
    if world.now.assigned.state == "running":
        for table, topic in ((TABLE, CHANGELOG), (SUMS, CHANGELOG_OF_SUMS)):
            assert world.kafka.fold(topic, world.now.position(table)) == world.now.table(table)
    return " ".join(world.attempts[before:])


def what_the_worker_did(world: World) -> str:
    """In the words of the table."""
    if world.lives[0].app.crashes:
        return STOPS
    if len(world.lives) > 1:
        return ANEW
    if world.rejoins:
        return WAITS
    if world.kafka.opened > 1:
        return ASKS if world.now.member.heartbeats else REOPENS
    return SENDS_AGAIN if len(world.attempts) > 2 else GOES_ON


def assert_it_stopped_by_name(world: World) -> None:
    """The error names what is refused; units before a refused record are committed, nothing behind it."""
    (crash,) = world.now.app.crashes
    if isinstance(crash, RecordRefused):
        assert "topic results" in str(crash)
        assert {EVENTS: 1} == world.kafka.committed
        assert [b"events-0/1"] == world.committed("results")
    else:
        assert isinstance(crash, StoreFailed)
        assert "No space left" in str(crash)


def repair(world: World) -> None:
    """What an operator does: the topic takes larger records, the disk has room, the worker is started."""
    world.kafka.refused.clear()
    world.kafka.too_large.clear()
    world.script.clear()
    world.now.run(world.now.layer.supervisor.stop())
    world.start()


def assert_all_is_committed_once(world: World) -> None:
    """Results, metrics, offset, changelogs, databases, the task's counters, memory."""
    results = [b"events-0/1", b"events-1/1", b"events-2/1", b"events-3/2"]
    assert results == world.committed("results")
    assert [b"events-%d" % offset for offset in range(4)] == world.committed("metrics")
    assert {EVENTS: 4} == world.kafka.committed
    counts = {b"a": b"2", b"b": b"1", b"c": b"1"}
    assert counts == world.kafka.fold(CHANGELOG)
    assert counts == world.now.table()
    assert {RECORD: b'{"events":4}'} == world.kafka.fold(CHANGELOG_OF_SUMS) == world.now.table(SUMS)
    task, bounds = world.now.assigned.task, world.now.layer.state.bounds
    assert task is not None
    assert not any(task.uncommitted.values())
    assert (0, 0, None) == (bounds.held_bytes, bounds.running, world.kafka.open)
