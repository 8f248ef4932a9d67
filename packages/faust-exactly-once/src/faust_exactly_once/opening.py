"""Opening a task: the one place where the order in which a task epoch begins stands."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .answers import START_S, ask_again, pauses
from .assigned_task import AssignedTask
from .cluster import Cluster
from .commit import Committer
from .database import NO_STATE, PartitionStore
from .environment import Deadline
from .errors import KafkaUnavailable, OffsetsMissing
from .facts import TP, LogEnds, TopicFacts
from .group import GroupMember
from .offset_metadata import changelog_tag, is_of_offset, make_metadata, read_reached, read_sources
from .options import Options
from .owner import Owner
from .producer import ConfluentProducer
from .recovery import Plan, Recovery, contradicts, plan, start_offsets
from .source import Source
from .stable_ends import wait_stable
from .task import Task
from .task_stores import TaskStores

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
        ever_read: the sources that it has ever read, empty if that is not on record.
        on_record: each source has a committed offset, and the sources stand in the offsets' metadata.
        stale: the offsets are not those of the last commit.
    """

    ends: Mapping[TP, LogEnds]
    starts: dict[TP, int]
    ever_read: frozenset[str]
    on_record: bool
    stale: bool


class Opening:
    """Opens task epochs; what blocks runs in threads of its own."""

    def __init__(self, app: Any, options: Options, cluster: Cluster, owner: Owner) -> None:
        self.facts: dict[str, TopicFacts] = {}
        self._app = app
        self._options = options
        self._cluster = cluster
        self._owner = owner
        self._cluster_id = ""
        self._epochs = 0
        self._environment = options.environment
        self._clock = options.environment.clock
        self._commits = self._environment.threads.pool(COMMIT_THREADS, "commit")
        self._openings = self._environment.threads.pool(OPENING_THREADS, "opening")

    async def learn(self, topics: Iterable[str]) -> None:
        """Read ids, partition counts, limits of the topics, once before the first assignment."""
        names = list(topics)
        self.facts.update(await asyncio.to_thread(self._at_start, lambda: self._cluster.topics(names)))
        self._cluster_id = await asyncio.to_thread(self._at_start, self._cluster.id)

    def _at_start(self, question: Callable[[], T]) -> T:
        return ask_again(question, START_S, lambda text: logger.warning("%s", text), self._clock)

    def stop(self) -> None:
        """End the threads; what still runs in one ends by its own time-out."""
        self._commits.shutdown(wait=False, cancel_futures=True)
        self._openings.shutdown(wait=False, cancel_futures=True)

    async def open(self, assigned: AssignedTask, member: GroupMember | None) -> None:
        """Open a task epoch: fence, read offsets, recover, seek; in this order (points 6 to 8)."""
        started = self._clock.monotonic()
        assigned.state = "fencing"
        producer = ConfluentProducer(self._options, f"{self._app.conf.id}-{GROUP}-{assigned.partition}")
        if member is not None:
            producer.coordinator = member.coordinator
        stores = self._stores(assigned.partition)
        try:
            await self._in_thread(self._fence, producer)
            fenced = self._clock.monotonic()
            assigned.state = "recovering"
            sources = await self._in_thread(self._recover, assigned, producer, stores)
            if assigned.revoked:
                return
            assigned.task = self._new_task(assigned, producer, stores, sources)
        finally:
            if assigned.task is None:
                await self._in_thread(_close, producer, stores)
        assigned.task.start()
        offsets = {source.topic: source.position for source in sources.values()}
        if member is not None:
            await member.continue_at(
                {(t, assigned.partition): o for t, o in offsets.items()},
                assigned.membership, assigned.task.epoch,
            )
        await self._in_thread(lambda: self._options.probe("after_seek"))
        assigned.opened_in((fenced - started) * 1e3, (self._clock.monotonic() - fenced) * 1e3)
        logger.info(
            "task %d runs: fenced in %.0f ms, recovered %d records in %.0f ms, from %s", assigned.partition,
            assigned.stages_ms["fence"], assigned.recovery.done if assigned.recovery else 0,
            assigned.stages_ms["recover"], offsets, extra={"task": assigned.partition},
        )  # fmt: skip

    def _stores(self, partition: int) -> TaskStores:
        paths = {name: self._path(name, partition) for name in self._app.tables}
        stores = {name: PartitionStore(path, self._environment) for name, path in paths.items()}
        return TaskStores(stores, self._environment.threads)

    def _new_task(
        self, assigned: AssignedTask, producer: ConfluentProducer, stores: TaskStores,
        sources: dict[str, Source],
    ) -> Task:  # fmt: skip
        changelogs = {name: self._changelog(name) for name in self._app.tables}
        committer = Committer(
            producer, stores, assigned.partition, assigned.membership, changelogs, self._options
        )
        self._epochs += 1
        return Task(
            self._owner, assigned.partition, sources, stores, committer, self._commits, self._epochs,
            assigned.counts,
        )

    def _fence(self, producer: ConfluentProducer) -> None:
        """From its return on no older producer of the task commits; in a thread."""
        self._options.probe("before_fence")
        producer.init_transactions()
        self._options.probe("after_fence")

    def _recover(
        self, assigned: AssignedTask, producer: ConfluentProducer, stores: TaskStores
    ) -> dict[str, Source]:
        """Committed offsets, then the changelogs to the last stable offset, after the fence; in a thread."""
        partition = assigned.partition
        sources = [(topic, partition) for topic in sorted(assigned.topics)]
        changelogs = {name: (self._changelog(name), partition) for name in stores.tables}

        def say(text: str) -> None:
            assigned.why = text
            logger.warning("task %d: %s", partition, text, extra={"task": partition, "fold": True})

        assigned.recovery = Recovery(self._options, say)
        logs = list(changelogs.values())
        found = self._confirmed(assigned, lambda: self._read_kafka(assigned, sources, logs, say), say)
        producer.changelog_tags = {log[0]: self._tag(log[0]) for log in logs}
        producer.changelogs_reach = {log[0]: found.ends[log].stable for log in logs}
        self._begin_at(assigned, producer, found)
        for name, store in stores.tables.items():
            reason = store.open()
            if reason not in (None, NO_STATE):
                say(f"table {name} is rebuilt from empty: {reason}")
        plans = self._confirmed_plans(assigned, stores, changelogs, found.ends, say)
        assigned.recovery.run(plans, lambda: assigned.revoked)
        self._options.probe("after_recovery")
        return {tp[0]: Source(tp[0], at, at, at, found.ends[tp].high) for tp, at in found.starts.items()}

    def _read_kafka(
        self, assigned: AssignedTask, sources: Sequence[TP], changelogs: Sequence[TP],
        say: Callable[[str], None],
    ) -> Found:  # fmt: skip
        """What Kafka says now; raises OffsetsMissing."""
        assert assigned.recovery is not None  # noqa: S101 - for the type checker: the caller made it
        offsets = self._cluster.committed_with_metadata(self._app.conf.id, sources)
        self._options.probe("after_offsets")
        committed = {tp: None if at is None else at[0] for tp, at in offsets.items()}
        ends = wait_stable(self._cluster, changelogs, say, also=sources, clock=self._clock)
        self._options.probe("after_log_ends")
        reached = self._reached(changelogs, offsets)
        self._refuse_a_lagging_leader(changelogs, ends, reached)
        # a first commit that was aborted leaves its aborted records behind, no offset: that is no content
        new = set(committed.values()) == {None}
        empty = new and not assigned.recovery.holds_records({log: ends[log] for log in changelogs})
        ever_read = read_sources(at[1] for at in offsets.values() if at is not None)
        starts = start_offsets({tp: ends[tp] for tp in sources}, committed, empty, ever_read)
        stale = self._are_stale(assigned.recovery, offsets, ends, reached)
        on_record = bool(ever_read) and None not in committed.values()
        return Found(ends, starts, ever_read, on_record, stale)

    def _reached(
        self, changelogs: Sequence[TP], offsets: Mapping[TP, tuple[int, str] | None]
    ) -> dict[TP, int]:
        """How far each changelog must reach, by the metadata of the offsets."""
        found = read_reached(at[1] for at in offsets.values() if at is not None)
        return {log: found[tag] for log in changelogs if (tag := self._tag(log[0])) in found}

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

    def _are_stale(
        self, recovery: Recovery, offsets: Mapping[TP, tuple[int, str] | None], ends: Mapping[TP, LogEnds],
        reached: Mapping[TP, int],
    ) -> bool:  # fmt: skip
        """True if a changelog has committed records behind those of the commit that the offsets are of.

        Offsets and changelog records commit together: these offsets came from a coordinator that lags.
        Not known where an offset is an operator's, or of a release that does not write how far they reach.
        """
        known = all(at is None or is_of_offset(at[1], tp[0], at[0]) for tp, at in offsets.items())
        # the one offset behind the last record is the marker of its own transaction
        beyond = {
            log: LogEnds(max(at, ends[log].start), ends[log].stable, ends[log].high)
            for log, at in reached.items() if ends[log].stable > at + 1
        }  # fmt: skip
        return known and bool(beyond) and recovery.holds_records(beyond)

    def _tag(self, changelog: str) -> str:
        return changelog_tag(changelog, self.facts[changelog].topic_id)

    def _confirmed(
        self, assigned: AssignedTask, look: Callable[[], Found], say: Callable[[str], None]
    ) -> Found:
        """What Kafka says; that offsets are missing is believed once it has said so for 5 s.

        A leader or coordinator of just now may know less than the one before it; only a fact may stop a task
        for an operator.
        """
        confirmed, said = Deadline(self._clock, self._options.confirm_s), False
        for pause in pauses():
            late = assigned.revoked or confirmed.left_s() < 0
            try:
                found = look()
                if not found.stale or late:
                    return found
                why = ": the changelogs are ahead of the committed offsets"
            except OffsetsMissing as exc:
                if late:
                    raise
                why = f" before the task stops: {exc}"
            if not said:
                say(f"asking Kafka again{why}")
            said = True
            self._cluster.start_afresh()
            self._clock.sleep(pause)
        raise AssertionError("pauses never end")

    def _confirmed_plans(
        self, assigned: AssignedTask, stores: TaskStores, changelogs: Mapping[str, TP],
        ends: Mapping[TP, LogEnds], say: Callable[[str], None],
    ) -> list[Plan]:  # fmt: skip
        """What is to be read; that a changelog is not its database's is believed after 5 s."""
        confirmed, said = Deadline(self._clock, self._options.confirm_s), False
        for pause in pauses():
            plans = self._plans(stores, changelogs, ends)
            contradicted = [item.changelog for item in plans if contradicts(item)]
            if not contradicted or assigned.revoked or confirmed.left_s() < 0:
                return plans
            if not said:
                say(
                    "asking Kafka again before a table is rebuilt: "
                    f"the ends of {contradicted} are not its own"
                )
            said = True
            self._cluster.start_afresh()
            self._clock.sleep(pause)
            now = wait_stable(self._cluster, contradicted, say, clock=self._clock)
            ends = {**ends, **now}
        raise AssertionError("pauses never end")

    def _begin_at(self, assigned: AssignedTask, producer: ConfluentProducer, found: Found) -> None:
        """Commit where the sources start, at once, if that or which they are is not on record.

        So a source that has no offset is one that the task never opened, or one whose offset was lost: the
        metadata of the others' offsets say which. An operator who sets offsets writes none.
        """
        producer.offset_metadata = make_metadata(found.ever_read.union(assigned.topics))
        if not found.on_record:
            producer.begin_transaction()  # 1, 5, 6 of the commit: there is nothing to send
            producer.add_offsets(found.starts, assigned.membership)
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
        path: Path = self._app.tables[table].data.path(partition)
        return path

    def _in_thread(self, call: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._openings, call, *args)


def _close(producer: ConfluentProducer, stores: TaskStores) -> None:
    producer.close()
    stores.close()
