"""A worker's lives on a scripted Kafka: the real layer, in virtual time, its commits in a test's hand."""

import shutil
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rocksdict import DbClosedError, WriteBatch

from faust_exactly_once import layer, producer
from faust_exactly_once.answers import CONFIRM_S
from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.brokers import BrokerState
from faust_exactly_once.clients import Clients
from faust_exactly_once.disk import Disk, open_database
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.environment import Environment, Threads
from faust_exactly_once.errors import KafkaUnavailable
from faust_exactly_once.facts import TP, LogEnds, TopicFacts
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.units import Outgoing, current_unit
from layer_kit.memory_kafka import Record
from layer_kit.scripted_librdkafka import ScriptedConsumer, ScriptedKafka, ScriptedProducer
from layer_kit.virtual_time import Held, Inline, VirtualTimeLoop

EVENTS: TP = ("events", 0)
TABLE, CHANGELOG = "counts", "app-counts-changelog"
SUMS, CHANGELOG_OF_SUMS = "sums", "app-sums-changelog"  # the task's counters
TIMEOUT_S = 1.0  # of calls, in virtual time
A_LOOK_S = 1e-4
LONGEST_PAUSE_S = 20.0  # virtual: longer than the pauses that the layer makes between a few tries
MOST_ATTEMPTS = 100
Step = Callable[["World"], object]


class Crash(BaseException):
    """Raised where the process is gone: whoever would catch it does not exist any more."""


class ScriptedCluster:
    """Stands where `Cluster` does: what the broker says now."""

    def __init__(self, kafka: ScriptedKafka) -> None:
        self._kafka = kafka

    def id(self) -> str:
        """The cluster id."""
        return "cluster"

    def start_afresh(self) -> None:
        """There are no clients."""

    def topics(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        """One partition each."""
        return {name: TopicFacts(f"id of {name}", 1, {}) for name in names}

    def committed_with_metadata(
        self, group: str, partitions: Sequence[TP]
    ) -> dict[TP, tuple[int, str] | None]:
        """The stable committed offsets with their metadata; an open transaction with offsets has none."""
        if self._kafka.open is not None and self._kafka.open.offsets:
            raise KafkaUnavailable("the committed offsets are not stable")
        found = {tp: self._kafka.committed[tp] for tp in partitions}
        metadata = self._kafka.metadata
        return {tp: None if at is None else (at, metadata.get(tp, "")) for tp, at in found.items()}

    def log_ends(self, partitions: Iterable[TP]) -> dict[TP, LogEnds]:
        """Sources as they are, changelogs with what the open transaction put there."""
        ends = self._kafka.ends()
        for tp in partitions:
            log = self._kafka.changelogs.get(tp[0], [])
            ends.setdefault(tp, LogEnds(0, len(log), self._kafka.end_of(tp[0])))
        return ends


class InterruptedRdict:
    """A real RocksDB whose writes go wrong where a test says so."""

    def __init__(self, happens: Callable[[str], None], path: Path) -> None:
        self._happens = happens
        self._db = open_database(path)

    def write(self, batch: WriteBatch) -> None:
        """Write, unless the test is against it."""
        self._happens("write")
        self._db.write(batch)
        self._happens("after write")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Files:
    """Names the databases of a table."""

    def __init__(self, folder: Path, table: str) -> None:
        self._folder, self._table = folder, table

    def path(self, partition: int) -> Path:
        """The database of a partition."""
        return self._folder / f"{self._table}-{partition}.db"


class App:
    """What the layer needs of a Faust app."""

    def __init__(self, folder: Path) -> None:
        self.conf = SimpleNamespace(id="app")
        self.tables = {
            table: SimpleNamespace(changelog_topic_name=topic, data=Files(folder, table), in_memory=False)
            for table, topic in ((TABLE, CHANGELOG), (SUMS, CHANGELOG_OF_SUMS))
        }
        self.crashes: list[BaseException] = []

    async def crash(self, exc: BaseException) -> None:
        """The worker stops."""
        self.crashes.append(exc)


class Member:
    """The consumer that is the group's member."""

    def __init__(self, kafka: ScriptedKafka) -> None:
        self._kafka = kafka
        self._at: dict[TP, tuple[int, int]] = {}
        self.heartbeats = 0

    async def continue_at(self, offsets: Mapping[TP, int], membership: Membership, epoch: int) -> None:
        """Fetch from there, for the task epoch with this number."""
        self._at = {tp: (epoch, at) for tp, at in offsets.items()}

    async def is_member(self, membership: Membership) -> bool:
        """A heartbeat."""
        self.heartbeats += 1
        return membership == self._kafka.membership

    def has_contact(self) -> bool:
        """Always."""
        return True

    def silent_s(self) -> float:
        """Never."""
        return 0.0

    def coordinator(self) -> int | None:
        """Not asked here."""
        return None

    def brokers(self) -> Mapping[int, BrokerState]:
        """Not asked here."""
        return {}

    def fetch(self, wanted: Iterable[TP]) -> dict[TP, Fetched]:
        """All there is."""
        fetched: dict[TP, Fetched] = {}
        for tp in wanted:
            epoch, at = self._at[tp]
            log = self._kafka.logs[tp]
            self._at[tp] = epoch, len(log)
            fetched[tp] = Fetched(epoch, at, [record for record in log[at:] if record is not None], len(log))
        return fetched


def scripted(kafka: ScriptedKafka) -> Clients:
    """Clients of a Kafka that follows a script."""
    producer: Any = partial(ScriptedProducer, kafka)
    consumer: Any = partial(ScriptedConsumer, kafka)
    return Clients(producer, consumer)


class Waited:
    """A clock that goes on by what calls of the script are said to have taken, by sleeping, by looks at it.

    By the real one a busy machine would decide which time-outs are over.
    """

    def __init__(self, kafka: ScriptedKafka) -> None:
        self._kafka = kafka
        self._looks = 0

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        self._looks += 1
        return self._kafka.waited_s + self._looks * A_LOOK_S

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._kafka.waited_s += seconds


class Answer(Future[Any]):
    """What a thread's call brings; how long a call takes that never ends is the script's to say."""

    def __init__(self, kafka: ScriptedKafka) -> None:
        super().__init__()
        kafka.answer = self
        self._kafka = kafka
        self._known = threading.Event()
        self.add_done_callback(lambda _: self._known.set())

    def never_comes(self) -> None:
        """Who waits for it need not wait."""
        self._known.set()

    def result(self, timeout: float | None = None) -> Any:
        """Raises TimeoutError at once where it never comes, with the time added."""
        self._known.wait()
        if not self.done():
            self._kafka.waited_s += timeout or 0.0
            raise TimeoutError
        return super().result(0)


class Process:
    """One life of the worker, on a disk of its own."""

    def __init__(self, kafka: ScriptedKafka, folder: Path, disk: Disk, confirm_s: float) -> None:
        self.kafka, self.folder = kafka, folder
        self.loop, self.held = VirtualTimeLoop(), Held()
        self.app, self.member = App(folder), Member(kafka)
        threads = Threads(
            pool=lambda _, name: self.held if name == "commit" else Inline(), future=partial(Answer, kafka)
        )
        environment = Environment(scripted(kafka), Waited(kafka), threads, disk)
        options = Options(
            client_config={}, request_timeout_s=TIMEOUT_S, confirm_s=confirm_s, environment=environment
        )
        self.layer = Layer(self.app, options)
        self.layer.state.member = self.member

    @property
    def assigned(self) -> AssignedTask:
        """That of the one task."""
        return self.layer.assigned_tasks[EVENTS[1]]

    def run(self, call: Any) -> None:
        """Do this, then all that follows from it at once."""
        self.loop.run_until_complete(call)
        self.loop.settle()

    def join(self) -> None:
        """The group assigns the task under its generation of now."""
        topics = {EVENTS[1]: frozenset([EVENTS[0]])}
        self.run(self.layer.supervisor.assigned(topics, self.kafka.membership))

    def table(self, name: str = TABLE) -> dict[bytes, bytes]:
        """The database as a view reads it."""
        items = self.layer.committed_items(EVENTS[1], name, 100)
        return {key.encode(): value for key, value in items}

    def position(self, table: str = TABLE) -> int:
        """The changelog offset that the database says it has reached."""
        assert self.assigned.task is not None
        return self.assigned.task._stores.tables[table].reached.position  # noqa: SLF001


class World:
    """A Kafka, one process after the other, the script of what goes wrong.

    Attributes:
        script: what happens at the next calls of a name.
        handled: how often a handler ran, by the event's offset.
        attempts: how each commit ended: "committed", "crash", or the error's name.
        left: what the first of them left in Kafka.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, confirm_s: float = CONFIRM_S) -> None:
        self.confirm_s = confirm_s  # of the lives that begin from now on
        self.script: dict[str, deque[Step]] = defaultdict(deque)
        self.kafka = ScriptedKafka(EVENTS, self.happens)
        self.handled: Counter[int] = Counter()
        self.attempts: list[str] = []
        self.left = ""
        self.rejoins = 0
        self.lives: list[Process] = []
        self.coordinator_is_back = threading.Event()
        self._folder = folder
        self._databases: list[InterruptedRdict] = []
        patch.setattr(producer, "ADD_OFFSETS_EXTRA_S", 0.0)
        patch.setattr(layer, "Cluster", lambda *_: ScriptedCluster(self.kafka))
        self.start()

    @property
    def now(self) -> Process:
        """The process that lives."""
        return self.lives[-1]

    @property
    def client(self) -> ScriptedProducer:
        """The producer whose call it is."""
        assert self.kafka.client is not None
        return self.kafka.client

    def start(self, *, disk: bool = True) -> None:
        """A process opens the task, with what the one before left on the disk just now, or on a new one."""
        folder = self._folder / f"life {len(self.lives)}"
        if self.lives and disk:
            shutil.copytree(self.now.folder, folder, ignore=shutil.ignore_patterns("LOCK"))
        self.lives.append(Process(self.kafka, folder, Disk(open=self._open), self.confirm_s))
        self.now.run(self.now.layer.learn([CHANGELOG, CHANGELOG_OF_SUMS]))
        self.now.join()

    def go_on(self) -> None:
        """Fetch, handle, commit, until nothing happens by itself any more."""
        for _ in range(MOST_ATTEMPTS):
            self.now.loop.settle(LONGEST_PAUSE_S)
            dispatcher = self.now.layer.dispatcher
            for _, batch in dispatcher.batches(self.now.member.fetch(dispatcher.wanted())):
                self.now.run(batch.each(self.handle))
            self.now.loop.settle()
            if not self.now.held.waiting:
                return
            self._commit()
        raise AssertionError(f"no end: {Counter(self.attempts)}")

    async def handle(self, event: Record) -> None:
        """Count the events of a key."""
        self.handled[event.offset] += 1
        unit, key = current_unit(), event.key or b""
        unit.count(SUMS, "events", 1)
        count = b"%d" % (int(unit.read(TABLE, key) or 0) + 1)
        unit.write(TABLE, key, count)
        unit.send(Outgoing("results", key, b"%b/%b" % (event.value or b"", count)))
        unit.send(Outgoing("metrics", None, event.value, headers=[("key", key)]))

    def committed(self, topic: str) -> list[bytes]:
        """Values of the committed records of a topic, sorted."""
        records = [record for transaction in self.kafka.transactions for record in transaction.records]
        return sorted(record.value or b"" for record in records if record.topic == topic)

    def stands_still(self) -> bool:
        """True if the task waits for the group, however much time goes by."""
        return self.now.assigned.state in ("blocked", "closed") and not self.now.app.crashes

    def rejoin(self) -> None:
        """The group revokes, then assigns anew."""
        self.rejoins += 1
        self.now.run(self.now.layer.supervisor.revoke())
        self.now.join()

    def end(self) -> None:
        """End threads, loops, databases: those of a process that died are open in this one."""
        self.coordinator_is_back.set()
        for thread in threading.enumerate():
            if thread.name == "add-offsets":
                thread.join(60)
        for process in self.lives:
            process.loop.end()
        for database in self._databases:
            with suppress(DbClosedError):
                database.close()

    def _commit(self) -> None:
        """Let the commit thread do one commit; if the process is gone, a new one starts."""
        future = self.now.held.waiting[0][0]
        committed, aborted = len(self.kafka.transactions), self.kafka.aborted
        try:
            self.now.held.run_next()
            error = future.exception()
            self.attempts.append(type(error).__name__ if error else "committed")
        except Crash:
            self.attempts.append("crash")
        self.left = self.left or self._found(committed, aborted)
        if self.attempts[-1] == "crash":
            self.start()

    def _open(self, path: Path) -> InterruptedRdict:
        self._databases.append(InterruptedRdict(self.happens, path))
        return self._databases[-1]

    def _found(self, committed: int, aborted: int) -> str:
        if self.kafka.open is not None:
            return "open"
        if len(self.kafka.transactions) > committed:
            return "committed"
        return "aborted" if self.kafka.aborted > aborted else "nothing"

    def happens(self, name: str) -> None:
        """What the script has for the next call of this name."""
        if self.script[name]:
            self.script[name].popleft()(self)
