"""The classes of both layers, driven inside the test's own process: no worker, no waiting for one."""

# what this reaches into is what the defects are about
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faust
from confluent_kafka.admin import NewTopic
from defects.kit import Trouble
from faust.transport.drivers import aiokafka as driver
from support.producers import idempotent_producer

import faust_exactly_once as exactly_once
from faust_exactly_once import Options, batched
from faust_exactly_once.batch import Batch
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.membership import Membership
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.table_manager import whole_tasks

WAIT_S = 120.0
NO_BROKER = "127.0.0.1:1"
NOBODY = Membership("nobody", -1, "")


async def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


class Plain:
    """Consumer, producer, transaction manager of one plain Faust app; leaving it stops what was started."""

    def __init__(
        self, folder: Path, name: str, broker: str = NO_BROKER, *, consumer: Any = driver.Consumer,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.app: Any = faust.App(
            name, broker=f"kafka://{broker}", store="rocksdb://", processing_guarantee="exactly_once",
            datadir=folder / name, web_enabled=False, topic_replication_factor=1, **settings,
        )  # fmt: skip
        self.app.in_worker = True  # as faust.Worker does; without it Faust uses no transaction
        self.app.finalize()
        self._assigned = asyncio.Event()
        self.consumer: Any = consumer(
            self.app.transport, callback=ignore, on_partitions_revoked=ignore,
            on_partitions_assigned=self._note_assignment,
        )  # fmt: skip
        self.app._consumer = self.consumer
        self.producer: Any = self.app.producer
        self.transactions: Any = self.consumer.transactions

    async def _note_assignment(self, assigned: Iterable[Any], generation: int = 0) -> None:
        self._assigned.set()

    async def join(self, topic: str) -> None:
        """Start the consumer; return when it has partitions."""
        await self.consumer.start()
        await self.consumer.subscribe([topic])
        await in_time(self._assigned.wait())

    async def begin(self, topic: str) -> None:
        """Begin the transaction of the topic's partition 0, as the assignment of it does."""
        await self.producer.maybe_start()
        self.app.assignor._topic_groups = {topic: 0}
        await self.transactions.on_rebalance({self.tp(topic)}, set(), {self.tp(topic)})

    async def send(self, topic: str, value: bytes, to: str | None = None) -> None:
        """Send within the transaction of the topic's partition 0; return when the broker has it."""
        transaction = f"{self.app.conf.id}-0-0"
        sent = await self.producer.send(to or topic, b"k", value, 0, None, None, transactional_id=transaction)
        await in_time(sent)

    def tp(self, topic: str) -> Any:
        """Partition 0 in the form that Faust hands to aiokafka."""
        return self.consumer._new_topicpartition(topic, 0)

    async def __aenter__(self) -> Plain:
        # aiokafka leaves futures whose exception nobody reads; told of while garbage is collected amid a
        # parse, that makes CPython 3.11 fail (its issue 106905)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        return self

    async def __aexit__(self, *_: object) -> None:
        for service in (self.consumer, self.producer):
            if service.started:
                await service.stop()
        if not self.consumer.started:
            self.consumer._thread.thread_loop.close()  # made by its __init__, closed by its thread


class Ours:
    """The tasks of one app on the layer, fed by the test; leaving it ends them."""

    def __init__(self, folder: Path, name: str, broker: str, **options: Any) -> None:
        settings = exactly_once.settings([f"kafka://{broker}"], session_timeout_s=6.0)
        self.app: Any = faust.App(name, datadir=folder / name, web_enabled=False, **settings)
        self.app.in_worker = True
        self.layer = exactly_once.install(
            self.app, Options(client_config={"bootstrap.servers": broker}, **options)
        )
        self.consumer: Any = None

    async def open(self, *topics: str, membership: Membership = NOBODY) -> None:
        """Open the task of partition 0 without being a member; return when it runs."""
        await self.layer.learn(topics)
        await self.layer.supervisor.assigned({0: frozenset(topics)}, membership)
        await self._until_it_runs()

    async def _until_it_runs(self) -> None:
        await in_time(self.layer.supervisor.all_settled())
        assigned = self.layer.assigned_tasks[0]
        if assigned.state != "running":
            raise Trouble(f"the task does not run: {assigned.why}")

    async def join(self, topic: str) -> None:
        """Start a consumer of the group; return when its task runs. The agent is the test."""
        self.app.agent(batched(self.app.topic(topic)))(ignore)
        await self.layer.learn([topic])
        self.app._consumer = self.consumer = self.app.transport.create_consumer(
            callback=ignore, on_partitions_revoked=ignore, on_partitions_assigned=self._open_assigned
        )
        self.layer.state.member = self.consumer
        await self.consumer.start()
        await self.consumer.subscribe([topic])
        await self._until_it_runs()

    async def _open_assigned(self, assigned: Any, generation: int = 0) -> None:
        await self.layer.supervisor.assigned(whole_tasks(assigned), self.consumer.membership)

    async def fetch(self, within_s: float = 60.0) -> list[Batch]:
        """What the consumer finds for the tasks, as batches; nothing if it finds nothing in time."""
        batches: list[Batch] = []
        thread, deadline = self.consumer._thread, time.monotonic() + within_s
        while not batches and time.monotonic() < deadline:
            fetched = await thread.in_loop(thread.fetch(self.layer.dispatcher.wanted()))
            batches = [batch for _, batch in self.layer.dispatcher.batches(fetched)]
        return batches

    async def __aenter__(self) -> Ours:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.consumer is not None:
            await self.consumer.stop()
        await self.layer.supervisor.stop()


def producer_of(broker: str, transactional_id: str) -> ConfluentProducer:
    """One of the layer's producers, not yet open."""
    options = Options(client_config={"bootstrap.servers": broker}, request_timeout_s=10.0)
    return ConfluentProducer(options, transactional_id)


def cluster_with(broker: str, *topics: str) -> Cluster:
    """The cluster, once it has these topics of one partition."""
    cluster = Cluster({"bootstrap.servers": broker}, 60)
    cluster.create([NewTopic(topic, 1, 1) for topic in topics])
    return cluster


def append(broker: str, topic: str, *values: str) -> None:
    """Append events to partition 0, each with its value as key, outside any transaction."""
    producer = idempotent_producer(broker)
    for value in values:
        producer.produce(topic, value.encode(), key=value.encode(), partition=0)
    if producer.flush(60):
        raise Trouble("the broker did not take the events")


async def readable_to_its_end(cluster: Cluster, topic: str, within_s: float = 12.0) -> bool:
    """True as soon as a committed reader of partition 0 gets past everything that was sent to it.

    A transaction that nobody ends is open longer: for the layer's time-out, 15 s, or Faust's, a minute.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        ends = (await asyncio.to_thread(cluster.log_ends, [(topic, 0)]))[topic, 0]
        if ends.stable == ends.high > 0:
            return True
        await asyncio.sleep(0.05)
    return False


async def in_time(awaitable: Any) -> Any:
    """What comes of it within the time that any of these tests waits for anything."""
    try:
        async with asyncio.timeout(WAIT_S):
            return await awaitable
    except TimeoutError as exc:
        raise Trouble(f"nothing came in {WAIT_S} s") from exc
