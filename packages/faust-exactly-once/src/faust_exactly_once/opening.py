"""Opening a task: the one place where the order of an incarnation's beginning stands."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .answers import CONFIRM_S, START_S, ask_again, pauses
from .cluster import TP, Cluster, LogEnds, TopicFacts, wait_stable
from .commit import Committer
from .errors import KafkaUnavailable, OffsetsMissing
from .group import GroupMember
from .notes import is_of_offset, make_note, mark_of, read_note, read_reached
from .options import Options
from .owner import Owner
from .producer import ConfluentProducer
from .recovery import Plan, Recovery, contradicts, plan, start_offsets
from .slot import Slot
from .source import Source
from .store import NO_STATE, PartitionStore, TaskStores
from .task import Task

logger = logging.getLogger(__name__)
T = TypeVar("T")

GROUP = "tasks"  # the name of the group of tasks in the transactional id: stable over releases (point 6)
COMMIT_THREADS = 4
OPENING_THREADS = 8


class Found(NamedTuple):
    """What Kafka says of a task.

    Attributes:
        ends: of its sources and changelogs.
        starts: where its sources go on.
        ever: the sources that it has ever read, empty if that is not on record.
        on_record: each source has a committed offset, and the sources are noted beside them.
        old: the offsets are not those of the last commit.
    """

    ends: Mapping[TP, LogEnds]
    starts: dict[TP, int]
    ever: frozenset[str]
    on_record: bool
    old: bool


class Opening:
    """Opens incarnations of tasks; what blocks runs in threads of its own."""

    def __init__(self, app: Any, options: Options, cluster: Cluster, owner: Owner) -> None:
        self.facts: dict[str, TopicFacts] = {}
        self._app = app
        self._options = options
        self._cluster = cluster
        self._owner = owner
        self._cluster_id = ""
        self._incarnations = 0
        self._commits = ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="commit")
        self._openings = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="opening")

    async def learn(self, topics: Iterable[str]) -> None:
        """Read ids, partition counts, limits of the topics, once before the first assignment."""
        names = list(topics)
        self.facts.update(await asyncio.to_thread(_at_start, lambda: self._cluster.topics(names)))
        self._cluster_id = await asyncio.to_thread(_at_start, self._cluster.id)

    def stop(self) -> None:
        """End the threads; what still runs in one ends by its own time-out."""
        self._commits.shutdown(wait=False, cancel_futures=True)
        self._openings.shutdown(wait=False, cancel_futures=True)

    async def open(self, slot: Slot, member: GroupMember | None) -> None:
        """Open an incarnation: fence, read offsets, recover, seek; in this order (points 6 to 8)."""
        started = time.monotonic()
        slot.state = "fencing"
        producer = ConfluentProducer(self._options, f"{self._app.conf.id}-{GROUP}-{slot.partition}")
        if member is not None:
            producer.coordinator = member.coordinator
        stores = TaskStores(
            {name: PartitionStore(self._path(name, slot.partition)) for name in self._app.tables}
        )
        try:
            await self._in_thread(self._fence, producer)
            fenced = time.monotonic()
            slot.state = "recovering"
            sources = await self._in_thread(self._recover, slot, producer, stores)
            if slot.revoked:
                return
            slot.task = self._new_task(slot, producer, stores, sources)
        finally:
            if slot.task is None:
                await self._in_thread(_close, producer, stores)
        slot.task.start()
        offsets = {source.topic: source.position for source in sources.values()}
        if member is not None:
            await member.continue_at(
                {(t, slot.partition): o for t, o in offsets.items()}, slot.membership, slot.task.token
            )
        await self._in_thread(lambda: self._options.probe("after_seek"))
        slot.opened_in((fenced - started) * 1e3, (time.monotonic() - fenced) * 1e3)
        logger.info(
            "task %d runs: fenced in %.0f ms, recovered %d records in %.0f ms, from %s", slot.partition,
            slot.stages_ms["fence"], slot.recovery.done if slot.recovery else 0,
            slot.stages_ms["recover"], offsets, extra={"task": slot.partition},
        )  # fmt: skip

    def _new_task(
        self, slot: Slot, producer: ConfluentProducer, stores: TaskStores, sources: dict[str, Source]
    ) -> Task:
        changelogs = {name: self._changelog(name) for name in self._app.tables}
        committer = Committer(producer, stores, slot.partition, slot.membership, changelogs, self._options)
        self._incarnations += 1
        return Task(
            self._owner, slot.partition, sources, stores, committer, self._commits, self._incarnations,
            slot.counts,
        )

    def _fence(self, producer: ConfluentProducer) -> None:
        """From its return on no older producer of the task commits; in a thread."""
        self._options.probe("before_fence")
        producer.init_transactions()
        self._options.probe("after_fence")

    def _recover(self, slot: Slot, producer: ConfluentProducer, stores: TaskStores) -> dict[str, Source]:
        """Committed offsets, then the changelogs to the last stable offset, after the fence; in a thread."""
        partition = slot.partition
        sources = [(topic, partition) for topic in sorted(slot.topics)]
        changelogs = {name: (self._changelog(name), partition) for name in stores.tables}

        def say(text: str) -> None:
            slot.why = text
            logger.warning("task %d: %s", partition, text, extra={"task": partition, "fold": True})

        slot.recovery = Recovery(self._options, say)
        found = self._sure(slot, lambda: self._look(slot, sources, list(changelogs.values()), say), say)
        producer.marks = {log[0]: self._mark(log[0]) for log in changelogs.values()}
        producer.changelogs_reach = {log[0]: found.ends[log].stable for log in changelogs.values()}
        self._begin_at(slot, producer, found)
        for name, store in stores.tables.items():
            reason = store.open()
            if reason not in (None, NO_STATE):
                say(f"table {name} is rebuilt from empty: {reason}")
        slot.recovery.run(self._sure_plans(slot, stores, changelogs, found.ends, say), lambda: slot.revoked)
        self._options.probe("after_recovery")
        return {tp[0]: Source(tp[0], at, at, at, found.ends[tp].high) for tp, at in found.starts.items()}

    def _look(
        self, slot: Slot, sources: Sequence[TP], changelogs: Sequence[TP], say: Callable[[str], None]
    ) -> Found:
        """What Kafka says now; raises OffsetsMissing."""
        assert slot.recovery is not None  # noqa: S101 - for the type checker: the caller made it
        notes = self._cluster.committed_with_notes(self._app.conf.id, sources)
        self._options.probe("after_offsets")
        committed = {tp: None if at is None else at[0] for tp, at in notes.items()}
        ends = wait_stable(self._cluster, changelogs, say, beside=sources)
        self._options.probe("after_log_ends")
        reached = self._reached(changelogs, notes)
        self._refuse_a_lagging_leader(changelogs, ends, reached)
        # a first commit that was aborted leaves its aborted records behind, no offset: that is no content
        new = set(committed.values()) == {None}
        empty = new and not slot.recovery.holds_records({log: ends[log] for log in changelogs})
        ever = read_note(at[1] for at in notes.values() if at is not None)
        starts = start_offsets({tp: ends[tp] for tp in sources}, committed, empty, ever)
        old = self._are_old(slot.recovery, notes, ends, reached)
        on_record = bool(ever) and None not in committed.values()
        return Found(ends, starts, ever, on_record, old)

    def _reached(
        self, changelogs: Sequence[TP], notes: Mapping[TP, tuple[int, str] | None]
    ) -> dict[TP, int]:
        """How far each changelog must reach, by the notes beside the offsets."""
        found = read_reached(at[1] for at in notes.values() if at is not None)
        return {log: found[mark] for log in changelogs if (mark := self._mark(log[0])) in found}

    def _refuse_a_lagging_leader(
        self, changelogs: Sequence[TP], ends: Mapping[TP, LogEnds], reached: Mapping[TP, int]
    ) -> None:
        """A leader that is cut off from its peers goes on answering, without what its successor took.

        Raises:
            KafkaUnavailable: a changelog ends before what the task's last commit on record had in it.
        """
        for log in changelogs:
            at, end = reached.get(log, 0), ends[log].stable
            if end < at:
                self._cluster.start_afresh()
                raise KafkaUnavailable(
                    f"changelog {log[0]}-{log[1]} ends at {end}, but {at} was committed: its leader lags "
                    "or its records are lost; to go on without them choose the task's offsets anew with "
                    "kafka-consumer-groups --reset-offsets"
                )

    def _are_old(
        self, recovery: Recovery, notes: Mapping[TP, tuple[int, str] | None], ends: Mapping[TP, LogEnds],
        reached: Mapping[TP, int],
    ) -> bool:  # fmt: skip
        """True if a changelog has committed records behind those of the commit that the offsets are of.

        Offsets and changelog records commit together: these offsets were told by a coordinator that lags.
        Not known where an offset is an operator's, or of a release that does not write how far they reach.
        """
        known = all(at is None or is_of_offset(at[1], tp[0], at[0]) for tp, at in notes.items())
        # the one offset behind the last record is the marker of its own transaction
        beyond = {
            log: LogEnds(max(at, ends[log].start), ends[log].stable, ends[log].high)
            for log, at in reached.items() if ends[log].stable > at + 1
        }  # fmt: skip
        return known and bool(beyond) and recovery.holds_records(beyond)

    def _mark(self, changelog: str) -> str:
        return mark_of(changelog, self.facts[changelog].topic_id)

    def _sure(self, slot: Slot, look: Callable[[], Found], say: Callable[[str], None]) -> Found:
        """What Kafka says; that offsets are missing is believed once it has said so for 5 s.

        A leader or coordinator of just now may know less than the one before it; only a fact may stop a task
        for an operator.
        """
        since, said = time.monotonic(), False
        for pause in pauses():
            late = slot.revoked or time.monotonic() > since + CONFIRM_S
            try:
                found = look()
                if not found.old or late:
                    return found
                doubt = ": the changelogs are ahead of the committed offsets"
            except OffsetsMissing as exc:
                if late:
                    raise
                doubt = f" before the task stops: {exc}"
            if not said:
                say(f"asking Kafka again{doubt}")
            said = True
            self._cluster.start_afresh()
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def _sure_plans(
        self, slot: Slot, stores: TaskStores, changelogs: Mapping[str, TP], ends: Mapping[TP, LogEnds],
        say: Callable[[str], None],
    ) -> list[Plan]:  # fmt: skip
        """What is to be read; that a changelog is not its database's is believed after 5 s."""
        since, said = time.monotonic(), False
        for pause in pauses():
            plans = self._plans(stores, changelogs, ends)
            doubted = [item.changelog for item in plans if contradicts(item)]
            if not doubted or slot.revoked or time.monotonic() > since + CONFIRM_S:
                return plans
            if not said:
                say(f"asking Kafka again before a table is rebuilt: the ends of {doubted} are not its own")
            said = True
            self._cluster.start_afresh()
            time.sleep(pause)
            ends = {**ends, **wait_stable(self._cluster, doubted, say)}
        raise AssertionError("pauses never end")

    def _begin_at(self, slot: Slot, producer: ConfluentProducer, found: Found) -> None:
        """Commit where the sources start, at once, if that or the note of the sources is not on record.

        So a source that has no offset is one that the task never opened, or one whose offset was lost: the
        note beside the others' offsets says which. An operator who sets offsets writes none.
        """
        producer.offset_note = make_note(found.ever.union(slot.topics))
        if not found.on_record:
            producer.begin_transaction()  # 1, 5, 6 of the commit: there is nothing to send
            producer.add_offsets(found.starts, slot.membership)
            producer.commit_transaction()

    def _plans(
        self, stores: TaskStores, changelogs: Mapping[str, TP], ends: Mapping[TP, LogEnds]
    ) -> list[Plan]:
        return [
            plan(name, log, stores.tables[name], self._cluster_id, self.facts[log[0]], ends[log])
            for name, log in changelogs.items()
        ]

    def _changelog(self, table: str) -> str:
        return str(self._app.tables[table].changelog_topic_name)

    def _path(self, table: str, partition: int) -> Path:
        return Path(self._app.tables[table].data.path(partition))

    def _in_thread(self, call: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._openings, call, *args)


def _at_start(question: Callable[[], T]) -> T:
    return ask_again(question, START_S, lambda text: logger.warning("%s", text))


def _close(producer: ConfluentProducer, stores: TaskStores) -> None:
    producer.close()
    stores.close()
