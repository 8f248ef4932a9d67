"""Opening a task: the one place where the order of an incarnation's beginning stands."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from .brokers import BrokerSeen
from .cluster import TP, Cluster, LogEnds, TopicFacts, wait_stable
from .commit import Committer
from .membership import Membership
from .options import Options
from .producer import ConfluentProducer
from .recovery import Plan, Recovery, make_note, plan, read_note, start_offsets
from .slot import Slot
from .store import NO_STATE, PartitionStore, TaskStores
from .task import Source, Task, Worker

logger = logging.getLogger(__name__)

GROUP = "tasks"  # the name of the group of tasks in the transactional id: stable over releases (point 6)
COMMIT_THREADS = 4
OPENING_THREADS = 8


class Membrane(Protocol):
    """What the layer asks of the consumer that is the group's member."""

    async def continue_at(self, offsets: Mapping[TP, int], membership: Membership, token: int) -> None:
        """Seek, then let the partitions be fetched for the incarnation with this token."""

    async def is_member(self, membership: Membership) -> bool:
        """True if a heartbeat just confirmed this generation."""

    def has_contact(self) -> bool:
        """False while the group's coordinator is away."""

    def silent_s(self) -> float:
        """Seconds for which every broker has owed the answer to a fetch; 0 if none does."""

    def coordinator(self) -> int | None:
        """The broker that coordinates the group, None while it is not known."""

    def brokers(self) -> Mapping[int, BrokerSeen]:
        """What is known of each broker of the cluster, by id; empty before the first assignment."""


class Opening:
    """Opens incarnations of tasks; what blocks runs in threads of its own."""

    def __init__(self, app: Any, options: Options, cluster: Cluster, worker: Worker) -> None:
        self.facts: dict[str, TopicFacts] = {}
        self._app = app
        self._options = options
        self._cluster = cluster
        self._worker = worker
        self._cluster_id = ""
        self._incarnations = 0
        self._commits = ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="commit")
        self._openings = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="opening")

    async def learn(self, topics: Iterable[str]) -> None:
        """Read ids, partition counts, limits of the topics, once before the first assignment."""
        self.facts.update(await asyncio.to_thread(self._cluster.topics, topics))
        self._cluster_id = await asyncio.to_thread(self._cluster.id)

    def stop(self) -> None:
        """End the threads; what still runs in one ends by its own time-out."""
        self._commits.shutdown(wait=False, cancel_futures=True)
        self._openings.shutdown(wait=False, cancel_futures=True)

    async def open(self, slot: Slot, member: Membrane | None) -> None:
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
            await self._in_thread(producer.open)
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
            self._worker, slot.partition, sources, stores, committer, self._commits, self._incarnations,
            slot.counts,
        )

    def _recover(self, slot: Slot, producer: ConfluentProducer, stores: TaskStores) -> dict[str, Source]:
        """Committed offsets, then the changelogs to the last stable offset, after the fence; in a thread."""
        partition = slot.partition
        sources = [(topic, partition) for topic in sorted(slot.topics)]
        changelogs = {name: (self._changelog(name), partition) for name in stores.tables}

        def say(text: str) -> None:
            slot.why = text
            logger.warning("task %d: %s", partition, text, extra={"task": partition, "fold": True})

        committed = self._cluster.committed_with_notes(self._app.conf.id, sources)
        logs = list(changelogs.values())
        ends = wait_stable(self._cluster, logs, say, beside=sources)
        slot.recovery = Recovery(self._options, say)
        # a first commit that was aborted leaves its aborted records behind, no offset: that is no content
        new = set(committed.values()) == {None}
        empty = new and not slot.recovery.holds_records({log: ends[log] for log in logs})
        starts = self._begin_at(slot, producer, {tp: ends[tp] for tp in sources}, committed, empty)
        for name, store in stores.tables.items():
            reason = store.open()
            if reason not in (None, NO_STATE):
                say(f"table {name} is rebuilt from empty: {reason}")
        slot.recovery.run(self._plans(stores, changelogs, ends), lambda: slot.revoked)
        return {tp[0]: Source(tp[0], at, at, at, ends[tp].high) for tp, at in starts.items()}

    def _begin_at(
        self, slot: Slot, producer: ConfluentProducer, logs: Mapping[TP, LogEnds],
        found: Mapping[TP, tuple[int, str] | None], changelog_empty: bool,
    ) -> dict[TP, int]:  # fmt: skip
        """Where the sources start; committed at once if it is the first time for one of them.

        So a source that has no offset is one that the task never opened, or one whose offset was lost: the
        note beside the others' offsets says which (decision 11).
        """
        committed = {tp: None if at is None else at[0] for tp, at in found.items()}
        ever = read_note(at[1] for at in found.values() if at is not None)
        starts = start_offsets(logs, committed, changelog_empty, ever)
        producer.offset_note = make_note(ever.union(slot.topics))
        if None in committed.values():
            producer.begin()
            producer.commit(starts, slot.membership)
            producer.finish()
        return starts

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


def _close(producer: ConfluentProducer, stores: TaskStores) -> None:
    producer.close()
    stores.close()
