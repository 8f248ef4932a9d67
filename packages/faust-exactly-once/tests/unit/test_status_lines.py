"""When the layer writes a task's line into the log, what stands in it; the clock is the test's."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
from layer_kit.memory_kafka import MemoryDisk, MemoryKafka, MemoryProducer, MemoryStore, Record
from layer_kit.virtual_time import Inline

from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.commit import Committer
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.errors import OffsetsMissing, RecordRefused, TaskFenced
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.source import Source, Waiting
from faust_exactly_once.task import Task
from faust_exactly_once.task_stores import TaskStores
from faust_exactly_once.units import Unit
from faust_exactly_once.watch import Watch

EVERY_S, ALARM_S = 10.0, 60.0
KEYS = (
    "task state why recovered waiting oldest held_by age_s gap_s key alarm commits units records "
    "commit_age_s commit_ms commit_units commit_records aborts last_abort failures last_failure revoke_ms "
    "join_ms fence_ms recover_ms first_events_ms"
).split()


class App:
    """What the layer's state needs of an app: to be there."""


class WatchedLayer:
    """A layer with one running task; the test moves the clock, the events, the commits."""

    def __init__(self, **options: Any) -> None:
        self.app = App()
        self.layer = Layer(
            self.app,
            Options(client_config={}, report_every_s=EVERY_S, head_of_line_alarm_s=ALARM_S, **options),
        )
        self.now_s = 1000.0
        self.layer.watch = Watch(self.layer, clock=lambda: self.now_s)
        self.source = Source("events", 0, 0, None)
        self.assigned = AssignedTask(
            0, frozenset(["events"]), Membership("g", 1, "m")
        )
        self.layer.assigned_tasks[0] = self.assigned
        self.assigned.task = self._task()
        self.assigned.runs()

    def _task(self) -> Task:
        kafka, layer = MemoryKafka([("events", 0)]), self.layer
        stores = TaskStores({"t": MemoryStore(MemoryDisk(), kafka)})
        committer = Committer(
            MemoryProducer(kafka), stores, 0, self.assigned.membership, {"t": "log"}, layer.options
        )
        sources, counts = {"events": self.source}, self.assigned.counts
        return Task(layer.state, 0, sources, stores, committer, Inline(), 1, counts)

    def admit(self, offset: int, key: bytes | None = b"user-1") -> None:
        """An event whose handler has begun."""
        assert self.assigned.task is not None
        event = Record("events", 0, offset, key)
        self.source.run.append(Unit(self.assigned.task, event, offset + 1, None, False))

    def commit(self) -> None:
        """The first event is committed."""
        unit = self.source.run.popleft()
        self.source.committed = unit.event.offset + 1
        self.assigned.counts.committed(1, 3, 0.0125, time.time())

    def look(self, after_s: float = 0.0) -> list[tuple[int, dict[str, str]]]:
        """What is said at a look so many seconds later: levels with the fields."""
        self.now_s += after_s
        return [(level, fields(text)) for level, text in self.layer.watch.look()]


def fields(text: str) -> dict[str, str]:
    """The fields of a line; values in quotes keep them."""
    assert text.startswith("status ")
    return dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)', text))


@pytest.fixture
def bench() -> WatchedLayer:
    """A task of which the first line has been said."""
    bench = WatchedLayer()
    ((level, _),) = bench.look()
    assert logging.INFO == level
    return bench


def test_an_idle_task_says_nothing_more(bench: WatchedLayer) -> None:
    """Nothing has changed, so there is nothing to say, for hours."""
    assert [] == [said for _ in range(1000) for said in bench.look(EVERY_S)]


def test_a_task_that_works_says_one_line_a_period(bench: WatchedLayer) -> None:
    """However often it is looked at, however many commits there are."""
    said = []
    for offset in range(40):
        bench.admit(offset)
        bench.commit()
        said += bench.look(1.0)
    assert [logging.INFO] * 4 == [level for level, _ in said]
    assert ["10", "20", "30", "40"] == [one["commits"] for _, one in said]
    assert [] == bench.look(EVERY_S), "the last line said it all"


def test_a_blocked_task_says_so_at_once_then_as_any_other(bench: WatchedLayer) -> None:
    """WARNING, with the reason; a task that tries again and again does not fill the log."""
    block(bench, OffsetsMissing("no committed offset"))
    ((level, said),) = bench.look(1.0)
    assert (logging.WARNING, "blocked", '"no committed offset"') == (level, said["state"], said["why"])
    later = []
    for _ in range(19):
        bench.assigned.state = "fencing"
        later += bench.look(0.5)
        block(bench, OffsetsMissing("no committed offset"))
        later += bench.look(0.5)
    assert 1 == len(later)


def test_an_alarm_is_said_once_when_it_begins_once_when_it_ends(bench: WatchedLayer) -> None:
    """ERROR, then WARNING, both with place, key, age of the event; in between it stands, at INFO."""
    bench.admit(5)
    bench.look(1.0)
    lines = [one for _ in range(70) for one in bench.look(1.0)]
    bench.admit(6)
    lines += bench.look(EVERY_S)
    bench.commit()
    lines += bench.look(1.0)
    alarms = [(level, one["alarm"], one["oldest"], one["key"]) for level, one in lines]
    assert [
        (logging.INFO, "no", "events-0@5", "user-1"),
        (logging.ERROR, "begins", "events-0@5", "user-1"),
        (logging.INFO, "stands", "events-0@5", "user-1"),
        (logging.WARNING, "over", "events-0@5", "user-1"),
    ] == alarms
    assert ["60.0", "80.0", "81.0"] == [one["gap_s"] for _, one in lines[1:]]


def test_an_alarm_is_over_for_a_worker_that_the_task_has_left(bench: WatchedLayer) -> None:
    """The line says so; the next worker has its own."""
    bench.admit(5)
    bench.look(1.0)
    bench.look(ALARM_S)
    del bench.layer.assigned_tasks[0]
    ((level, said),) = bench.look(1.0)
    assert (logging.WARNING, "left", "over") == (level, said["state"], said["alarm"])
    assert [] == bench.look(EVERY_S)


def test_a_line_has_the_same_keys_in_the_same_order_always(bench: WatchedLayer) -> None:
    """Greppable: with an event or without, blocked or not."""
    lines = []
    bench.assigned.stages_ms.update(revoke=1.4, join=20.0, fence=30.0, recover=40.6)
    bench.admit(5)
    lines += bench.look(EVERY_S)
    bench.commit()
    bench.assigned.counts.aborted(RecordRefused("a record of 5 bytes"))
    bench.assigned.counts.failed(TaskFenced("by another"))
    lines += bench.look(EVERY_S)
    assert [KEYS, KEYS] == [list(one) for _, one in lines]
    said = lines[1][1]
    assert ("1", "1", "3", "12.5") == tuple(said[k] for k in ("commits", "units", "records", "commit_ms"))
    assert ("1", '"RecordRefused: a record of 5 bytes"') == (said["aborts"], said["last_abort"])
    assert ("1", '"TaskFenced: by another"') == (said["failures"], said["last_failure"])
    assert ("1", "20", "30", "41", "-") == tuple(list(said.values())[-5:])
    assert ["-"] * 5 == [said[k] for k in ("oldest", "held_by", "age_s", "gap_s", "key")]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"user-1", "user-1"), (b"", "-"), (b"-", '"-"'), (None, "-"), (b"a b", '"a b"'), (b"a=b", '"a=b"'),
        (b'x"\nstatus task=9', '"x\\"\\nstatus task=9"'), (b"\xff", '"\\\\xff"'),
        ("\u2028é".encode(), '"\\u2028\\u00e9"'), (b"k" * 100, "k" * 64),
    ],
)  # fmt: skip
def test_a_key_cannot_break_the_line(key: bytes | None, shown: str) -> None:
    """Whatever a sender puts there, one line stays one line, one field one field, of bounded length."""
    bench = WatchedLayer()
    bench.admit(5, key)
    ((_, text),) = bench.layer.watch.look()
    assert 1 == len(text.splitlines())
    assert shown == fields(text)["key"]
    assert KEYS == list(fields(text))


def test_an_application_may_hide_what_a_key_holds() -> None:
    """`key_text` of the options."""
    bench = WatchedLayer(key_text=lambda key: f"{len(key)}-bytes")
    bench.admit(5, b"user-1")
    ((_, said),) = bench.look()
    assert "6-bytes" == said["key"]


@pytest.mark.parametrize(
    ("finished", "queued", "held_by"), [(False, 0, "handler"), (True, 0, "commit"), (None, 1, "agent")]
)
def test_the_line_says_who_holds_the_oldest_event(finished: bool | None, queued: int, held_by: str) -> None:
    """The handler, the commit, or the agent that has not taken it: three people to ask."""
    bench = WatchedLayer()
    bench.source.queued = queued
    if finished is not None:
        bench.admit(0)
        bench.source.run[0].finished = finished
    ((_, said),) = bench.look()
    assert (held_by, "events-0@0") == (said["held_by"], said["oldest"])


def test_a_fault_of_the_watch_is_logged_and_nothing_more(
    bench: WatchedLayer, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that works is not stopped by what only looks."""
    bench.assigned.stages_ms["fence"] = "no number"  # type: ignore[assignment]
    bench.now_s += EVERY_S
    bench.layer.watch.run_once()
    assert ["looking at the tasks failed"] == [one.getMessage() for one in caplog.records]


def block(bench: WatchedLayer, failure: Exception) -> None:
    """What the layer does to a task that failed."""
    bench.assigned.counts.failed(failure)
    bench.assigned.state, bench.assigned.why = "blocked", str(failure)


def test_what_waits_is_counted_where_it_is(bench: WatchedLayer) -> None:
    """Admitted events exactly, with the time stamp of the first; what lies behind them by its offsets."""
    assert {0: Waiting(0, 0, None)} == bench.layer.waiting("events")
    for offset in range(3):
        bench.admit(offset)
    bench.source.position, bench.source.log_end = 3, 10
    (waiting,) = bench.layer.waiting("events").values()
    assert (3, 7, bench.source.run[0].event.timestamp) == waiting
    bench.source.queued, bench.source.admit_from, bench.source.position = 1, 3, 6
    assert (3, 3 + 4) == bench.layer.waiting("events")[0][:2]
    assert {} == bench.layer.waiting("another")


def test_the_log_s_end_is_taken_from_each_fetch(bench: WatchedLayer) -> None:
    """One that does not say keeps the last one that did."""
    assert bench.assigned.task is not None
    epoch = bench.assigned.task.epoch
    bench.layer.dispatcher.batches({("events", 0): Fetched(epoch, 0, [], 0, log_end=7)})
    assert 7 == bench.layer.waiting("events")[0].unread
    bench.layer.dispatcher.batches({("events", 0): Fetched(epoch, 0, [], 2)})
    assert 5 == bench.layer.waiting("events")[0].unread
