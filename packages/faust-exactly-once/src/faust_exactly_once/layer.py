"""The tasks of one worker: each is opened, run, closed, opened again."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .batch import Batch, BatchSkipped
from .cluster import TP, Cluster, TopicFacts
from .connectivity import MOVES_S, Brokers, Connectivity
from .counts import Counts, Rebalances, reason
from .errors import (
    ExactlyOnceError,
    FetchFailed,
    KafkaUnavailable,
    MembershipLost,
    OffsetsMissing,
    OutcomeUnknown,
    RecordRefused,
    SetupRefused,
    StoreFailed,
    TaskFenced,
)
from .membership import Membership
from .opening import Membrane, Opening
from .options import Options
from .slot import Slot
from .speaking import Assignments, KafkaLines, say_of_brokers
from .store import View
from .task import HandlerFailed, Task, Waiting
from .watch import Watch

logger = logging.getLogger(__name__)

FINAL = (HandlerFailed, RecordRefused, SetupRefused)
STORE_FAILURES_IN_A_ROW = 3
STOP_S = 4.0  # how long the end of the worker waits for threads that wait for the broker
NO_CONTACT = {"state": "blocked", "why": "the broker that coordinates the group does not answer"}
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
SILENT_S = 3.0  # a fetch is answered many times in this time, also by a busy broker


class Fetched(NamedTuple):
    """What one fetch brought of one source partition.

    Attributes:
        token: the incarnation for which the consumer stands where it stands.
        start, end: the consumer's position before and after: `events` is all there is in between.
        error: why nothing can be read on from `start`.
        log_end: up to where the log could be read at the broker's last answer, None where that is not known.
    """

    token: int
    start: int
    events: list[Any]
    end: int
    error: Exception | None = None
    log_end: int | None = None


class Layer:
    """The exactly-once layer of one worker process; plain Faust classes find it with `Layer.of(app)`."""

    _of_app: "WeakKeyDictionary[Any, Layer]" = WeakKeyDictionary()

    def __init__(self, app: Any, options: Options) -> None:
        self.app = app
        self.options = options
        self.cluster = Cluster(options.client_config, options.request_timeout_s)
        self.slots: dict[int, Slot] = {}
        self.member: Membrane | None = None
        self.partitions = 0
        self.first_assignment = asyncio.Event()
        self.counts: dict[int, Counts] = {}
        self.rebalances = Rebalances()
        self.connectivity = Connectivity(self._kafka_answers)
        self.brokers = Brokers()
        self._contact_lost_at: float | None = None
        self.kafka_lines = KafkaLines(
            self.connectivity, options.held_back_lines, event_word=options.event_word
        )
        self._assignments = Assignments()
        self.watch = Watch(self)
        self._running = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._owners: set[asyncio.Task[None]] = set()
        self._sayers: set[asyncio.Task[None]] = set()
        self._leaving: dict[int, Slot] = {}
        self._opening = Opening(app, options, self.cluster, self)
        Layer._of_app[app] = self

    @classmethod
    def of(cls, app: Any) -> "Layer":
        """The layer of a Faust app.

        Raises:
            SetupRefused: if `install` was not called for it.
        """
        try:
            return cls._of_app[app]
        except KeyError:
            raise SetupRefused("call exactly_once.install(app, options) right after making the app") from None

    # -- what tasks need of their worker

    def handler_started(self) -> None:
        """Count a running handler."""
        self._running += 1

    def handler_ended(self) -> None:
        """Give back the place of a running handler."""
        self._running -= 1
        self._room.set()

    def bytes_held(self, size: int) -> None:
        """Count bytes of units (negative: given back)."""
        self._bytes += size

    def is_full(self) -> bool:
        """True if no handler may start now (the per-worker bound of point 10)."""
        return self._running >= self.options.max_running

    async def room(self) -> None:
        """Wait until a handler may start."""
        while self.is_full():
            self._room.clear()
            await self._room.wait()

    def task_failed(self, task: Task, exc: BaseException) -> None:
        """Take over a task whose commit or handler failed."""
        slot = self.slots.get(task.partition)
        if slot is not None and slot.task is task and slot.failure is None:
            slot.failure = exc
            slot.changed.set()

    # -- topics

    async def learn(self, topics: Iterable[str]) -> None:
        """Read ids, partition counts, limits of the topics, once before the first assignment."""
        await self._opening.learn(topics)

    @property
    def facts(self) -> dict[str, TopicFacts]:
        """What is known of each topic."""
        return self._opening.facts

    def record_limit(self, topic: str) -> int:
        """The largest record the topic takes, in bytes, less the overhead of a batch with one record."""
        facts = self.facts.get(topic)
        return (facts.max_message_bytes if facts else self.options.max_record_bytes) - 512

    def check_partitions(self, counts: Mapping[str, int]) -> None:
        """Refuse to go on once a source has another partition count: keys would leave their tables.

        Raises:
            SetupRefused: naming the topic, what it had, what it has, what to do.
        """
        for topic, count in sorted(counts.items()):
            if self.partitions not in (0, count):  # 0: nobody prepared this app
                raise SetupRefused(partitions_changed(topic, self.partitions, count))

    # -- fetching

    def wanted(self) -> dict[TP, Task]:
        """Partitions whose task may take more events."""
        if self._bytes > self.options.max_waiting_bytes:
            return {}
        return {
            (source.topic, task.partition): task
            for slot in self.slots.values()
            if slot.state == "running" and (task := slot.task) is not None and task.has_room()
            for source in task.sources.values()
            if source.queued < 2
        }

    def batches(self, fetched: Mapping[TP, Fetched]) -> list[tuple[str, Batch]]:
        """Turn one fetch into batches; what belongs to an old incarnation is dropped.

        A fetch must begin where the one before ended: a hole would be committed with what comes after it.
        Marks each batch as delivered before the position moves: until it is admitted, no commit may carry
        that position.
        """
        made: list[tuple[str, Batch]] = []
        for (topic, partition), got in fetched.items():
            slot = self.slots.get(partition)
            task = slot.task if slot is not None else None
            if task is None or task.token != got.token or not task.accepting:
                continue
            source = task.sources[topic]
            if got.error is not None or got.start > source.position:
                self.task_failed(task, _unreadable(topic, partition, got, source.position))
                continue
            if got.events:
                self.slots[partition].gets_events()
                source.queued += 1
                made.append((topic, Batch(self, task, source, got.events)))
            source.position = max(source.position, got.end)
            source.log_end = got.log_end or source.log_end
            if not got.events and source.idle_position() is not None:
                task.moved()
        return made

    # -- assignment

    async def assigned(self, partitions: Mapping[int, frozenset[str]], membership: Membership) -> None:
        """Open a new incarnation of each assigned task, retained ones included (point 7)."""
        stages = self.rebalances.assigned(time.monotonic())
        logger.info(
            "rebalance %d: generation %d, tasks %s, stages in ms %s", self.rebalances.total,
            membership.generation, sorted(partitions), {name: round(ms) for name, ms in stages.items()},
        )  # fmt: skip
        for partition, topics in partitions.items():
            before = self.slots.get(partition) or self._leaving.pop(partition, None)
            counts = self.counts.setdefault(partition, Counts())
            slot = Slot(partition, topics, membership, counts=counts, stages_ms=dict(stages))
            self.slots[partition] = slot
            owner = asyncio.get_running_loop().create_task(self._own(slot, before))
            self._owners.add(owner)
            owner.add_done_callback(self._owners.discard)
        self._assignments.changed(partitions)
        self.first_assignment.set()
        self._say_when_settled()

    def _say_when_settled(self) -> None:
        """Begin to wait for the tasks of the last assignment, to say that the worker is ready."""
        total = self.rebalances.total

        async def wait() -> None:
            await self.all_settled()
            if total == self.rebalances.total and not any(slot.revoked for slot in self.slots.values()):
                self._assignments.settled(list(self.slots.values()), self.partitions)

        waiting = asyncio.get_running_loop().create_task(wait())
        self._sayers.add(waiting)
        waiting.add_done_callback(self._sayers.discard)

    async def revoke(self) -> None:
        """End every incarnation: grace, last commit, cancel (point 7); bounded."""
        self.rebalances.revoking(time.monotonic())
        slots = [slot for slot in self.slots.values() if not slot.revoked]
        for slot in slots:
            slot.revoked = True
        options = self.options
        failures = await asyncio.gather(*(
            slot.task.close(grace_s=options.grace_s, last_commit_s=options.last_commit_s)
            for slot in slots if slot.task is not None
        ), return_exceptions=True)  # fmt: skip
        for slot in slots:
            slot.changed.set()
            slot.settled.set()
        self.rebalances.revoked(time.monotonic())
        for failure in failures:
            if isinstance(failure, BaseException):
                logger.error("stopping a task failed", exc_info=failure)
                await self.app.crash(failure)

    async def forget(self, partitions: Iterable[int]) -> None:
        """Drop the slots of partitions that now belong to others."""
        self._leaving = {p: slot for p, slot in self._leaving.items() if not slot.done.is_set()}
        for partition in partitions:
            slot = self.slots.pop(partition, None)
            if slot is not None:
                self._leaving[partition] = slot

    async def stop(self) -> None:
        """End everything, then the threads."""
        await self.revoke()
        for sayer in self._sayers:
            sayer.cancel()
        if self._owners:
            await asyncio.wait(set(self._owners), timeout=STOP_S)
        late = sorted(partition for partition, slot in self.slots.items() if not slot.done.is_set())
        if late:
            logger.warning("tasks %s are left without an answer from Kafka: their next start cleans up", late)
        self._opening.stop()

    async def all_settled(self) -> None:
        """Wait until every assigned task runs, or is known to be blocked."""
        await self.first_assignment.wait()
        while waiting := [slot for slot in self.slots.values() if not slot.settled.is_set()]:
            await waiting[0].settled.wait()

    def ready(self) -> bool:
        """True once partitions are assigned and recovered, or none is."""
        running = all(slot.state == "running" for slot in self.slots.values())
        return self.first_assignment.is_set() and running and self._has_contact()

    def status(self) -> list[dict[str, Any]]:
        """Per task its state for metrics, views, the log (point 13)."""
        found = [slot.status() | self.watch.oldest(slot) for _, slot in sorted(self.slots.items())]
        if not (self._has_contact() or self._coordinator_moves()):
            found = [task | NO_CONTACT if task["state"] == "running" else task for task in found]
        return found

    def worker_status(self) -> dict[str, Any]:
        """What is not of one task (point 13)."""
        return {
            "partitions": self.partitions,
            "group_contact": self._has_contact(),
            "running_handlers": self._running,
            "held_bytes": self._bytes,
            "rebalances": self.rebalances.total,
            "brokers": self.brokers.status(self.slots),
            "incarnations_opened": sum(counts.opened for counts in self.counts.values()),
            "failures": sum((counts.failures for counts in self.counts.values()), Counter()),
        }

    def _has_contact(self) -> bool:
        return self.member is None or self.member.has_contact()

    def look_at_kafka(self) -> None:
        """Look whether Kafka and each of its brokers answer, say what has changed; about once a second."""
        changes = self.brokers.look({} if self.member is None else self.member.brokers())
        lost_at = time.monotonic() if self._contact_lost_at is None else self._contact_lost_at
        self._contact_lost_at = None if self._has_contact() else lost_at
        self.kafka_lines.say(self.connectivity.look())
        if self.brokers.several():  # of a single one the lines about Kafka say it all
            say_of_brokers(changes, self.slots.keys())

    def _coordinator_moves(self) -> bool:
        """True while other brokers answer, and the group's coordinator is not known for a short time only."""
        lost_s = 0.0 if self._contact_lost_at is None else time.monotonic() - self._contact_lost_at
        return self.brokers.several() and self.brokers.any_answers() and lost_s < MOVES_S

    def _kafka_answers(self) -> bool:
        """Also false while every broker hangs, which the group notices only after its time-outs."""
        silent_s = 0.0 if self.member is None else self.member.silent_s()
        answers = self.brokers.any_answers() and silent_s < SILENT_S
        return answers and (self._has_contact() or self._coordinator_moves())

    def committed_value(self, partition: int, table: str, key: bytes) -> bytes | None:
        """A committed value of a task that this worker owns and has recovered (point 5).

        Raises:
            LookupError: if it does not, or has not yet.
        """
        slot = self.slots.get(partition)
        if slot is None or slot.state != "running" or slot.task is None or not slot.task.accepting:
            raise LookupError(f"partition {partition} is not here, or not recovered yet")
        try:
            return slot.task.committed_value(table, key)
        except StoreFailed as exc:
            raise LookupError(f"partition {partition} cannot be read now: {exc}") from exc

    def committed_items(
        self, partition: int, table: str, limit: int, after: str = ""
    ) -> list[tuple[str, bytes]]:
        """Committed keys and values of a table in a recovered task, in key order; empty if it is not here."""
        slot = self.slots.get(partition)
        if slot is None or slot.state != "running" or slot.task is None or not slot.task.accepting:
            return []
        try:
            return slot.task.committed_items(table, limit, after)
        except StoreFailed:
            return []  # it closes this moment; whoever opens it next is asked next

    async def view(self, partition: int, tables: Iterable[str]) -> View | None:
        """The tables of a recovered task as one commit left them; close it. None if the task is not here."""
        slot = self.slots.get(partition)
        if slot is None or slot.state != "running" or slot.task is None or not slot.task.accepting:
            return None
        try:
            return await asyncio.to_thread(slot.task.view, tables)
        except StoreFailed:
            return None  # it closes this moment

    def waiting(self, topic: str) -> dict[int, Waiting]:
        """What waits in each task that runs here, of one source topic; by partition."""
        return {
            partition: source.waiting()
            for partition, slot in sorted(self.slots.items())
            for source in slot.sources() if source.topic == topic
        }  # fmt: skip

    def assigned_partitions(self) -> list[int]:
        """The partitions whose tasks are this worker's, running or not."""
        return sorted(self.slots)

    def running_partitions(self) -> list[int]:
        """The partitions whose tasks run here."""
        return [p for p, slot in sorted(self.slots.items()) if slot.state == "running"]

    # -- one slot

    async def _own(self, slot: Slot, before: Slot | None) -> None:
        """Keep one task open while it is assigned; a failure ends its incarnation, a new one opens."""
        if before is not None:
            await before.done.wait()
        store_failures = tries = 0
        try:
            while not slot.revoked:
                commits = slot.counts.commits
                failure = await self._run_incarnation(slot)
                if failure is None or slot.over():
                    return
                tries = 0 if slot.counts.commits > commits else tries + 1
                store_failures = store_failures + 1 if isinstance(failure, StoreFailed) else 0
                await self._after_failure(slot, failure, tries, store_failures)
                slot.task = None
        except Exception as exc:
            logger.exception("task %d: internal error, the worker stops", slot.partition)
            await self.app.crash(exc)
        finally:
            slot.state = "closed"
            slot.done.set()
            slot.settled.set()

    async def _run_incarnation(self, slot: Slot) -> BaseException | None:
        """Open, run, close one incarnation.

        Returns:
            what ended it, or None if it was revoked.
        """
        slot.failure, slot.task = None, None
        slot.changed.clear()
        try:
            await self._opening.open(slot, self.member)
            if not slot.revoked:
                slot.runs()
                await slot.changed.wait()
            failure = slot.failure
        except Exception as exc:
            failure = exc
        slot.state = "closing"
        if slot.task is not None:
            await slot.task.close(grace_s=0, last_commit_s=0)
            await slot.task.ended()
        return failure

    async def _after_failure(
        self, slot: Slot, failure: BaseException, tries: int, store_failures: int
    ) -> None:
        """Decide what a failure means: stop the worker, stop the task, wait for the group, or try again."""
        slot.counts.failed(failure)
        # with Kafka away each task fails again and again: the lines about Kafka say it for all of them
        kafka = isinstance(failure, KafkaUnavailable | OutcomeUnknown)
        # a coordinator, a leader moves: by itself, and mostly the next opening goes well
        first = kafka and tries < 2  # 0: it had committed, 1: it had not yet
        slot.state = "fencing" if first else "blocked"
        slot.why = str(failure) or repr(failure)
        if isinstance(failure, FINAL) or store_failures >= STORE_FAILURES_IN_A_ROW:
            logger.critical(
                "task %d: the worker stops: %s", slot.partition, slot.why, extra={"task": slot.partition}
            )
            await self.app.crash(failure)
            await _until_revoked(slot)
            return
        if isinstance(failure, OffsetsMissing):
            logger.error(
                "task %d is stopped: %s", slot.partition, slot.why, extra={"task": slot.partition}
            )
            slot.settled.set()
            await _until_revoked(slot)
            return
        known = isinstance(failure, ExactlyOnceError | OSError)  # OSError: the disk, by name
        logger.log(
            logging.INFO if first else logging.WARNING,
            "task %d starts again after %s: %s", slot.partition, type(failure).__name__, slot.why,
            exc_info=None if known else failure, extra={"task": slot.partition, "fold": kafka},
        )  # fmt: skip
        if isinstance(failure, TaskFenced | MembershipLost | OutcomeUnknown):
            await self._until_member(slot)
        await self._pause(slot, BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])

    async def _pause(self, slot: Slot, seconds: float) -> None:
        """Wait, unless the group takes the task away."""
        slot.changed.clear()
        if not slot.revoked:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await slot.changed.wait()

    async def _until_member(self, slot: Slot) -> None:
        """Wait until a heartbeat confirms the membership, or the group takes the task away (point 6)."""
        while not slot.revoked and self.member is not None:
            if await self.member.is_member(slot.membership):
                return
            await self._pause(slot, 0.5)


async def _until_revoked(slot: Slot) -> None:
    """Open nothing more: the worker ends, or the group takes the task away."""
    while not slot.revoked:
        slot.changed.clear()
        await slot.changed.wait()


def partitions_changed(topic: str, before: int, now: int) -> str:
    """What is wrong with another partition count, what to do."""
    return (
        f"topic {topic} has {now} partitions, its tables were made for {before}: its keys would meet others' "
        f"tables. Nothing is handled until it has {before} again: create it anew, send what was not handled"
    )


def _unreadable(topic: str, partition: int, got: Fetched, expected: int) -> ExactlyOnceError:
    """Why a task cannot go on from a fetch.

    An offset out of range may be so on one leader, in one moment: the opening asks until that is a fact.
    """
    if got.error is not None:
        return FetchFailed(f"{topic}-{partition} cannot be read from offset {got.start}: {reason(got.error)}")
    where = f"{topic}-{partition} was fetched from {got.start}, expected {expected}"
    return BatchSkipped(f"{where}: records in between are missing")
