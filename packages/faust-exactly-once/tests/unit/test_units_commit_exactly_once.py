"""Units, task, commit against a model of Kafka that fails in every way it can.

Operations: append events with few keys to two source topics of one task, with or without a marker behind;
fetch, also again from an earlier offset; let a handler finish or fail; let time pass; let a commit end in
each of its ways (see `memory_kafka.ENDINGS`); revoke the task with grace; kill the process. After each end
a new epoch starts from the committed offsets, its database topped up from the changelog.

Properties, the first six checked after every operation, the others once everything is committed:

1. an event has at most one result, in the end exactly one (or one dead letter)
2. a transaction holds whole units: result, metric, dead letter, table changes, offset together; its
   counters are the sums of all units committed so far
3. a committed offset never passes an event without a result, never goes back
4. results of a key are committed in the order of its counter, which each handler reads, then writes
5. a database is the fold of a prefix of its changelog: never ahead
6. handlers of a key never run at once; `first_delivery` is never said of an event that a handler has seen
7. the tables are the fold of the committed units, the counters too
8. the uncommitted state is empty, no bytes are held, no handler is counted
9. the committed offsets are the ends of the logs, markers included
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from layer_kit.memory_kafka import (
    ENDINGS,
    MemoryDisk,
    MemoryKafka,
    MemoryProducer,
    MemoryStore,
    Record,
    Transaction,
)
from layer_kit.virtual_time import Held, VirtualClock, VirtualTimeLoop

from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.batch import Batch
from faust_exactly_once.commit import Committer
from faust_exactly_once.counters import RECORD, read, summed
from faust_exactly_once.database import Identity, PartitionStore
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.environment import Environment
from faust_exactly_once.facts import TP
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.recovery import start_offsets
from faust_exactly_once.source import Source
from faust_exactly_once.task import Task
from faust_exactly_once.task_stores import TaskStores
from faust_exactly_once.units import Outgoing, current_unit

SOURCES: list[TP] = [("events", 0), ("again", 0)]
CHANGELOGS = {"counts": "counts-changelog", "odd": "odd-changelog", "sums": "sums-changelog"}
MEMBERSHIP = Membership("group", 1, "member")
KEYS: list[bytes | None] = [b"a", b"b", b"c", None]


class App:
    """What the layer's admission needs of an app: to be there."""


class World(RuleBasedStateMachine):
    """One task of one worker, task epoch after task epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        asyncio.set_event_loop(None)
        self.kafka = MemoryKafka(SOURCES)
        self.disks = {table: MemoryDisk() for table in CHANGELOGS}
        self.options = Options(
            client_config={}, max_running=3, max_waiting_units=6, max_units_per_commit=3,
            on_handler_failure=self.dead_letter, environment=Environment(clock=VirtualClock(self.loop)),
        )  # fmt: skip
        self.app = App()
        self.layer = Layer(self.app, self.options)
        self.queues: dict[str, asyncio.Queue[Batch]] = {topic: asyncio.Queue() for topic, _ in SOURCES}
        self.agents = [self.loop.create_task(self.agent(queue)) for queue in self.queues.values()]
        self.seen: set[Record] = set()
        self.failures: dict[Record, int] = {}
        self.broken: list[AssertionError] = []
        self.checked = 0
        self.before: Mapping[TP, int | None] = dict(self.kafka.committed)
        self.results: Counter[str] = Counter()
        self.counters: dict[bytes | None, int] = {}
        self.sums: Counter[str] = Counter()
        self.open()

    # -- the worker

    def store(self, table: str) -> PartitionStore:
        """A database that fails one write where the Kafka wants it."""
        return MemoryStore(self.disks[table], self.kafka)

    def open(self) -> None:
        """A new epoch: fence, recover, start from the committed offsets."""
        self.held = Held()
        self.gates: list[asyncio.Future[bool]] = []
        self.busy: set[bytes | None] = set()
        self.kafka.ending = "commits"
        producer = MemoryProducer(self.kafka)
        stores = TaskStores({table: self.store(table) for table in CHANGELOGS})
        for table, store in stores.tables.items():
            store.open()
            if store.identity is None:
                store.identity = Identity("cluster", table, 0)
            log = self.kafka.changelogs.get(CHANGELOGS[table], [])
            store.apply(dict(filter(None, log[store.reached.position :])), len(log))
        ends = self.kafka.ends()
        starts = start_offsets(ends, self.kafka.committed, not self.kafka.changelogs)
        self.kafka.committed.update(starts)  # as `Opening` does the first time
        self.positions = dict(starts)
        sources = {tp[0]: Source(tp[0], at, at, at, ends[tp].high) for tp, at in starts.items()}
        committer = Committer(producer, stores, 0, MEMBERSHIP, CHANGELOGS, self.options)
        self.stores, self.task = stores, Task(self.layer.state, 0, sources, stores, committer, self.held)
        self.assigned = AssignedTask(
            0, frozenset(sources), MEMBERSHIP, "running", task=self.task
        )
        self.layer.assigned_tasks[0] = self.assigned
        self.loop.call_soon(self.task.start)
        self.loop.settle()

    async def agent(self, queue: "asyncio.Queue[Batch]") -> None:
        """What a Faust agent does."""
        while True:
            await (await queue.get()).each(self.handle)

    async def handle(self, event: Record) -> None:
        """Count the events of a key; fail, with half of the work done, where the test wants it."""
        unit = current_unit()
        try:
            assert not (unit.first_delivery and event in self.seen)  # 6
            assert event.key not in self.busy  # 6
            self.seen.add(event)
            self.busy.add(event.key)
            unit.count("sums", "events", 1)
            key = event.key or b"none"
            count = int(unit.read("counts", key) or 0)
            assert (unit.read("odd", key) is not None) == (count % 2 == 1)
            fails = self.failures.get(event, 0) > 0
            if not fails:
                gate: asyncio.Future[bool] = self.loop.create_future()
                self.gates.append(gate)
                fails = not await gate
            if fails:
                self.failures[event] = self.failures.get(event, 0) - 1
                unit.write("counts", key, b"-1")
                unit.write("odd", key, None if count % 2 else b"yes")
                unit.send(Outgoing("results", event.key, b"half"))
                raise RuntimeError("as the test wants")
            unit.write("counts", key, b"%d" % (count + 1))
            unit.write("odd", key, None if count % 2 else b"yes")
            unit.send(Outgoing("results", event.key, b"%b/%d" % (event.value or b"", count + 1)))
            unit.send(Outgoing("metrics", None, event.value))
            unit.count("sums", "results", 1)
            unit.count("sums", "bytes", len(event.value or b""))
        except AssertionError as exc:
            self.broken.append(exc)  # or the task would take it for a handler's failure
        finally:
            self.busy.discard(event.key)

    async def dead_letter(self, event: Record, exc: Exception) -> None:
        """The application's answer to a handler that fails for good."""
        current_unit().send(Outgoing("dead", event.key, event.value))
        current_unit().count("sums", "dead", 1)

    def reopen_if_failed(self) -> None:
        """What `Layer` does when a task has failed."""
        if self.assigned.failure is not None:
            self.end(grace_s=0, last_commit_s=0, ending="commits")

    def end(self, *, grace_s: float, last_commit_s: float, ending: str, finish: bool = False) -> None:
        """Close the epoch, wait for its thread, open the next one."""
        closing = self.loop.create_task(self.task.close(grace_s=grace_s, last_commit_s=last_commit_s))
        self.loop.settle()
        if finish:
            self.let(range(len(self.gates)), done=True)
        for _ in range(4):
            if self.held.waiting and grace_s:
                self.run_commit(ending)
                ending = "commits"
            self.loop.settle()
        self.loop.settle(3)
        assert closing.done()
        closing.result()
        ended = self.loop.create_task(self.task.ended())
        self.loop.settle()
        while self.held.waiting:
            self.run_commit(ending)
        self.loop.settle()
        assert ended.done()
        ended.result()
        self.open()

    def run_commit(self, ending: str) -> None:
        """Let the commit thread go on."""
        self.kafka.ending = ending
        self.held.run_next()
        self.kafka.ending = "commits"

    def let(self, which: Any, *, done: bool) -> None:
        """Let handlers that wait go on."""
        for gate in [self.gates[i] for i in which]:
            if not gate.done():
                gate.set_result(done)
        self.gates = [gate for gate in self.gates if not gate.done()]
        self.loop.settle()

    # -- operations

    @rule(
        tp=st.sampled_from(SOURCES), keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=5),
        marker=st.booleans(), fails=st.sampled_from([0, 0, 0, 1, 3]),
    )  # fmt: skip
    def append(self, tp: TP, keys: list[bytes | None], marker: bool, fails: int) -> None:
        for key in keys:
            self.failures[self.kafka.append(tp, key, marker)] = fails
            fails = 0

    @rule(most=st.integers(1, 4), back=st.sampled_from([0, 0, 0, 2]))
    def fetch(self, most: int, back: int) -> None:
        asked = self.layer.dispatcher.wanted()
        fetched: dict[TP, Fetched] = {}
        for tp, task in asked.items():
            at = max(self.positions[tp] - back, 0)
            found = self.kafka.logs[tp][at : at + most]
            records = [record for record in found if record is not None]
            self.positions[tp] = at + len(found)
            fetched[tp] = Fetched(task.epoch, at, records, self.positions[tp])
        for topic, batch in self.layer.dispatcher.batches(fetched):
            self.queues[topic].put_nowait(batch)
        self.loop.settle()

    @precondition(lambda self: self.gates)
    @rule(
        which=st.sampled_from([slice(1), slice(-1, None), slice(None)]),
        done=st.sampled_from([True, True, False]),
    )
    def go_on(self, which: slice, done: bool) -> None:
        self.let(range(len(self.gates))[which], done=done)

    @rule(virtual_s=st.sampled_from([0.15, 1.0]))
    def wait(self, virtual_s: float) -> None:
        self.loop.settle(virtual_s)

    @precondition(lambda self: self.held.waiting)
    @rule(ending=st.sampled_from(["commits", *ENDINGS]))
    def commit(self, ending: str) -> None:
        self.run_commit(ending)
        self.loop.settle(0.2)
        self.reopen_if_failed()

    @rule(
        how=st.sampled_from(["revoked", "finishing", "no grace", "killed"]),
        ending=st.sampled_from(["commits", *ENDINGS]),
    )
    def end_of_incarnation(self, how: str, ending: str) -> None:
        if how == "killed":
            self.kill()
        else:
            grace_s = 0 if how == "no grace" else 1.5
            self.end(grace_s=grace_s, last_commit_s=1.0, ending=ending, finish=how == "finishing")

    def kill(self) -> None:
        """The process is gone, its commit thread too."""
        closing = self.loop.create_task(self.task.close(grace_s=0, last_commit_s=0))
        self.held.waiting.clear()
        self.loop.settle()
        assert closing.done()
        self.stores.close()
        self.open()

    # -- properties

    @invariant()
    def committed_transactions_hold_whole_units(self) -> None:
        for transaction in self.kafka.transactions[self.checked :]:
            self.check(transaction)
        self.checked = len(self.kafka.transactions)

    def check(self, transaction: Transaction) -> None:
        """Properties 1 to 4 of one transaction."""
        sent: dict[str, list[str]] = {"results": [], "metrics": [], "dead": []}
        values: dict[tuple[str, bytes], bytes | None] = {}
        for record in transaction.records:
            assert record.value is not None
            event, _, count = record.value.decode().partition("/")
            sent[record.topic].append(event)
            if record.topic == "results":
                assert self.counters.get(record.key, 0) + 1 == int(count)  # 4
                self.counters[record.key] = int(count)
                key = record.key or b"none"
                values["counts-changelog", key] = count.encode()
                values["odd-changelog", key] = b"yes" if int(count) % 2 else None
        assert sorted(sent["results"]) == sorted(sent["metrics"])  # 2
        self.sums.update(events=len(sent["results"]), results=len(sent["results"]), dead=len(sent["dead"]))
        self.sums.update(bytes=sum(map(len, sent["results"])))
        self.sums = +self.sums  # no name that was never counted
        if sent["results"] or sent["dead"]:
            values["sums-changelog", RECORD] = summed(None, self.sums)
        assert sorted(values.items()) == sorted(((t, k), v) for t, k, v in transaction.changes)  # 2
        finished = sent["results"] + sent["dead"]
        self.results.update(finished)
        assert 1 == max(self.results.values(), default=1)  # 1
        covered: list[str] = []
        for tp, offset in transaction.offsets.items():
            assert (self.before[tp] or 0) <= offset  # 3
            log = self.kafka.logs[tp][self.before[tp] or 0 : offset]
            covered += [(record.value or b"").decode() for record in log if record is not None]
        assert sorted(covered) == sorted(finished)  # 2, 3
        self.before = {**self.before, **transaction.offsets}

    @invariant()
    def handlers_saw_what_they_may(self) -> None:
        assert [] == self.broken  # 6

    @invariant()
    def databases_are_never_ahead(self) -> None:
        for table, store in self.stores.tables.items():
            position, topic = store.reached.position, CHANGELOGS[table]
            assert position <= len(self.kafka.changelogs.get(topic, []))  # 5
            assert self.kafka.fold(topic, position) == dict(store.items())  # 5

    def teardown(self) -> None:
        """Commit everything that is left, then check the whole."""
        try:
            for _ in range(4 * len(self.kafka.events()) + 4):
                if self.kafka.committed == {tp: len(log) or None for tp, log in self.kafka.logs.items()}:
                    break
                self.fetch(most=4, back=0)
                self.let(range(len(self.gates)), done=True)
                self.loop.settle(1)
                if self.held.waiting:
                    self.commit("commits")
            self.committed_transactions_hold_whole_units()
            self.databases_are_never_ahead()
            self.handlers_saw_what_they_may()
            self.check_end()
        finally:
            for agent in self.agents:
                agent.cancel()
            self.stores.close()
            self.loop.end()

    def check_end(self) -> None:
        """Properties 1, 7, 8, 9."""
        assert {(event.value or b"").decode(): 1 for event in self.kafka.events()} == self.results  # 1
        counts = {key or b"none": b"%d" % count for key, count in self.counters.items()}
        assert counts == dict(self.stores.tables["counts"].items())  # 7
        odd = {key for key, count in counts.items() if int(count) % 2}
        assert odd == {key for key, _ in self.stores.tables["odd"].items()}  # 7
        assert dict(self.sums) == read(self.stores.tables["sums"].get(RECORD))  # 7
        assert not any(self.task.uncommitted.values())  # 8
        layer = self.layer
        assert (0, 0) == (layer.state.bounds.held_bytes, layer.state.bounds.running)  # 8
        for tp, log in self.kafka.logs.items():
            assert len(log) == (self.kafka.committed[tp] or 0)  # 9


class RealStore(PartitionStore):
    """A real database that refuses one write where the Kafka wants it."""

    def __init__(self, path: Path, kafka: MemoryKafka) -> None:
        super().__init__(path)
        self._kafka = kafka

    def apply(self, changes: Mapping[bytes, bytes | None], position: int) -> None:
        """Write, or refuse."""
        if self._kafka.ending == "commits but the store fails":
            raise OSError("as the test wants")
        super().apply(changes, position)


class WorldOnRocksDB(World):
    """The same on real databases, in far fewer runs."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__()

    def store(self, table: str) -> PartitionStore:
        """A real database."""
        return RealStore(Path(self.folder.name) / f"{table}.db", self.kafka)

    def teardown(self) -> None:
        """Remove the databases too."""
        super().teardown()
        self.folder.cleanup()


SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=SLOW
)
TestWorldOnRocksDB = WorldOnRocksDB.TestCase
TestWorldOnRocksDB.settings = settings(
    max_examples=5, stateful_step_count=25, deadline=None, suppress_health_check=SLOW
)
