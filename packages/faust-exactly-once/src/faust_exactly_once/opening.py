"""Opening a task: the one place where the order in which a task epoch begins stands."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .answers import START_S, ask_again, pauses
from .assigned_task import AssignedTask
from .cluster import Cluster
from .commit import Committer
from .database import NO_STATE, PartitionStore
from .environment import Deadline
from .facts import TP, LogEnds, TopicFacts
from .group import GroupMember
from .offset_metadata import make_metadata
from .options import Options
from .owner import Owner
from .producer import ConfluentProducer
from .recovery import Plan, Recovery, contradicts, plan
from .source import Source
from .stable_ends import wait_stable
from .task import Task
from .task_facts import Found, Logs, TaskFacts
from .task_stores import TaskStores

logger = logging.getLogger(__name__)
T = TypeVar("T")

GROUP = "tasks"  # the name of the group of tasks in the transactional id: stable over releases (point 6)
COMMIT_THREADS = 4
OPENING_THREADS = 8


class Opening:
    """Opens task epochs; what blocks runs in threads of its own."""

    def __init__(self, app: Any, options: Options, cluster: Cluster, owner: Owner) -> None:
        self.facts: dict[str, TopicFacts] = {}
        self._app = app
        self._options = options
        self._cluster = cluster
        self._owner = owner
        self._task_facts = TaskFacts(app, options, cluster, self.facts)
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
            await self._in_thread(self._fence, assigned, producer)
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
        await self._in_thread(lambda: self._probe(assigned, "after_seek"))
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

    def _fence(self, assigned: AssignedTask, producer: ConfluentProducer) -> None:
        """From its return on no older producer of the task commits; in a thread."""
        self._probe(assigned, "before_fence")
        producer.init_transactions()
        self._probe(assigned, "after_fence")

    def _probe(self, assigned: AssignedTask, point: str) -> None:
        """The task is at a point at which tests halt or kill it; in a thread."""
        logger.debug("task %d: %s", assigned.partition, point)
        self._options.probe(point)

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
        found = self._task_facts.confirmed(assigned, Logs(sources, logs), say)
        producer.changelog_tags = {log[0]: self._task_facts.tag(log[0]) for log in logs}
        producer.changelogs_reach = {log[0]: found.ends[log].stable for log in logs}
        self._begin_at(assigned, producer, found)
        for name, store in stores.tables.items():
            reason = store.open()
            if reason not in (None, NO_STATE):
                say(f"table {name} is rebuilt from empty: {reason}")
        plans = self._confirmed_plans(assigned, stores, changelogs, found.ends, say)
        assigned.recovery.run(plans, lambda: assigned.revoked)
        stores.keep_in_memory(name for name, table in self._app.tables.items() if table.in_memory)
        self._options.probe("after_recovery")
        return {tp[0]: Source(tp[0], at, at, at, found.ends[tp].high) for tp, at in found.starts.items()}

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
