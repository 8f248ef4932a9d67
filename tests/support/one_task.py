"""The whole application on one task of a Kafka in memory, in virtual time.

Real: the app as `create_app` builds it, its agents, the layer's units with their commits, the timers. In
memory: Kafka, the databases, the gateways. Nothing waits: the clock jumps.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import SimpleNamespace, TracebackType
from typing import Any

import orjson
import pytest
from layer_kit.memory_kafka import MemoryDisk, MemoryKafka, MemoryProducer, MemoryStore, Record
from layer_kit.virtual_time import Inline, VirtualTimeLoop

from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.commit import Committer
from faust_exactly_once.database import Identity
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.recovery import start_offsets
from faust_exactly_once.source import Source
from faust_exactly_once.task import Task
from faust_exactly_once.task_stores import TaskStores
from streamsocial_billing.app import GATEKEEPERS, create_app
from streamsocial_billing.domain import times
from streamsocial_billing.domain.events import PaymentEvent, RetryTrigger
from streamsocial_billing.gateways import resilient as resilient
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.payments import calling
from streamsocial_billing.settings import (
    COMMANDS,
    DEAD_LETTERS,
    METRICS,
    PAYMENTS,
    RESULTS,
    RETRY,
    Settings,
)
from streamsocial_billing.timers.due_payments import DueTimer
from streamsocial_billing.timers.renewals import RenewalTimer
from streamsocial_billing.timers.retention import RetentionTimer
from tables.payments import payment_key, read_entry

START_MS = 1_764_600_000_000
MEMBERSHIP = Membership("group", 1, "member")


class OneTask:
    """A worker that owns everything; use it as a context manager."""

    def __init__(self, *gateways: Gateway, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(partitions=1)
        self.loop = VirtualTimeLoop()
        self._patch = pytest.MonkeyPatch()
        self._waited_s = 0.0
        asyncio.set_event_loop(self.loop)  # Faust asks for it while it builds the app
        self.app = create_app(self.settings, {gateway.name: gateway for gateway in gateways})
        asyncio.set_event_loop(None)
        self.layer = Layer.of(self.app)
        self.layer.partitions = 1
        self._agents = {agent.channel.topics[0]: agent for agent in self.app.agents.values()}
        self.kafka = MemoryKafka([(topic, 0) for topic in self._agents])
        self._changelogs = {name: str(t.changelog_topic_name) for name, t in self.app.tables.items()}
        self.disks = {table: MemoryDisk() for table in self._changelogs}
        self.triggers = Triggers(self)
        self.gatekeeper = GATEKEEPERS[self.app]
        self.due = DueTimer(
            self.layer, self.triggers, self.gatekeeper.permits, self.gatekeeper.open_counts  # type: ignore[arg-type]
        )  # fmt: skip
        self.sweeping = RetentionTimer(self.layer, self.triggers)  # type: ignore[arg-type]
        self.renewing = RenewalTimer(self.layer, self.triggers)  # type: ignore[arg-type]
        self._looped = 0
        self.loses_what_is_sent = False  # to sources of the task, as a retention that has passed does

    def __enter__(self) -> "OneTask":
        clock = SimpleNamespace(**{**vars(time), "time_ns": lambda: self.now_ms * 1_000_000})
        self._patch.setattr(times, "time", clock)
        self._patch.setattr(calling, "time", SimpleNamespace(monotonic=self.loop.time))
        self._patch.setattr(resilient, "time", SimpleNamespace(monotonic=lambda: self.now_ms / 1000))
        self._queues: dict[str, asyncio.Queue[Any]] = {topic: asyncio.Queue() for topic in self._agents}
        for topic, agent in self._agents.items():
            self.loop.create_task(agent.fun(self._batches(topic)))
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.run_until_complete(self.task.close(grace_s=0, last_commit_s=0))
        self.loop.end()
        self._patch.undo()

    @property
    def now_ms(self) -> int:
        """The wall clock, ms since the epoch."""
        return START_MS + round((self.loop.time() + self._waited_s) * 1000)

    def open(self) -> None:
        """A new epoch: from the committed offsets."""
        producer, stores = MemoryProducer(self.kafka), self._stores()
        ends = self.kafka.ends()
        starts = start_offsets(ends, self.kafka.committed, not self.kafka.changelogs)
        self.kafka.committed.update(starts)
        self._positions = dict(starts)
        sources = {tp[0]: Source(tp[0], at, at, at, ends[tp].high) for tp, at in starts.items()}
        committer = Committer(producer, stores, 0, MEMBERSHIP, self._changelogs, self.layer.options)
        self.task = Task(self.layer.state, 0, sources, stores, committer, Inline())
        self.assigned = AssignedTask(
            0, frozenset(sources), MEMBERSHIP, "running", task=self.task
        )
        self.layer.assigned_tasks[0] = self.assigned
        self.loop.call_soon(self.task.start)
        self.loop.settle()

    def crash(self) -> None:
        """The process ends here and now; the next epoch begins from what was committed."""
        self.loop.run_until_complete(self.task.close(grace_s=0, last_commit_s=0))
        self.open()

    def _stores(self) -> TaskStores:
        stores = TaskStores({table: MemoryStore(disk, self.kafka) for table, disk in self.disks.items()})
        for table, store in stores.tables.items():
            store.open()
            store.identity = store.identity or Identity("cluster", table, 0)
        return stores

    async def _batches(self, topic: str) -> Any:
        while True:
            yield await self._queues[topic].get()

    # -- what comes in

    def append(self, topic: str, key: bytes | None, value: bytes | None, at_ms: int | None = None) -> None:
        """Append a record to a source."""
        tp = self.settings.topic(topic), 0
        at_ms = self.now_ms if at_ms is None else at_ms
        self.kafka.logs[tp].append(Record(*tp, len(self.kafka.logs[tp]), key, value, at_ms))

    def send(self, *payments: PaymentEvent, at_ms: int | None = None) -> list[dict[str, Any]]:
        """Append payments, handle them; the results that this brought."""
        before = len(self.results())
        for payment in payments:
            self.append(PAYMENTS, payment.user_id.encode(), payment.to_bytes(), at_ms)
        self.handle()
        return self.results()[before:]

    def trigger(self, user_id: str, payment_id: str) -> None:
        """Append a trigger, handle it."""
        self.append(RETRY, user_id.encode(), RetryTrigger(user_id, payment_id).to_bytes())
        self.handle()

    def subscription_trigger(self, user_id: str, subscription_id: str) -> None:
        """Append a trigger for a subscription, handle it."""
        trigger = RetryTrigger(user_id, subscription_id, "subscription")
        self.append(RETRY, user_id.encode(), trigger.to_bytes())
        self.handle()

    def command(self, command: str, user_id: str = "u1", **details: Any) -> None:
        """Append a command of this moment, handle it."""
        order = Command(command, "ann", "because", self.now_ms, user_id, details)
        self.append(COMMANDS, user_id.encode(), order.to_bytes())
        self.handle()

    def deliver(self) -> None:
        """Give everything appended to the agents."""
        self._loop_back()
        fetched = {}
        for tp, log in self.kafka.logs.items():
            at = self._positions[tp]
            records = [record for record in log[at:] if record is not None]
            self._positions[tp] = len(log)
            fetched[tp] = Fetched(self.task.epoch, at, records, len(log))
        for topic, batch in self.layer.dispatcher.batches(fetched):
            self._queues[topic].put_nowait(batch)

    def handle(self, virtual_s: float = 30) -> None:
        """Deliver, then wait until all is committed; fails if the task did."""
        self.deliver()
        ends = self.loop.time() + virtual_s
        self.loop.settle()
        while self.task.waiting_units() and self.loop.time() < ends:
            assert self.assigned.failure is None, self.assigned.failure
            self.loop.settle(0.05)
        assert self.assigned.failure is None, self.assigned.failure
        assert 0 == self.task.waiting_units()
        if self._looped < len(self.kafka.transactions):
            self.handle(virtual_s)

    def _loop_back(self) -> None:
        """What units committed to a source of their own task is a record of that source."""
        for transaction in self.kafka.transactions[self._looped :]:
            for one in transaction.records:
                if (one.topic, 0) in self.kafka.logs and not self.loses_what_is_sent:
                    log = self.kafka.logs[one.topic, 0]
                    log.append(Record(one.topic, 0, len(log), one.key, one.value, self.now_ms))
        self._looped = len(self.kafka.transactions)

    def wait(self, seconds: float) -> None:
        """Let time pass on the wall clock; no timer of the application runs meanwhile.

        The loop's own clock stays: asyncio cannot tell two moments apart once it has run for a year.
        """
        self._waited_s += seconds
        self.loop.settle()

    def look(self) -> int:
        """What the timers do each second, then handle their triggers; returns how many there were."""
        self.gatekeeper.look()
        sent: int = self.loop.run_until_complete(self.due.run_once(self.now_ms))
        sent += self.loop.run_until_complete(self.sweeping.run_once(self.now_ms))
        sent += self.loop.run_until_complete(self.renewing.run_once(self.now_ms))
        self.handle()
        return sent

    # -- what came of it

    def sent(self, topic: str) -> list[Any]:
        """Every committed record of an output topic."""
        name = self.settings.topic(topic)
        return [one for t in self.kafka.transactions for one in t.records if one.topic == name]

    def results(self) -> list[dict[str, Any]]:
        """Every ChargeResult."""
        return [orjson.loads(record.value) for record in self.sent(RESULTS)]

    def metrics(self) -> list[dict[str, Any]]:
        """Every PaymentMetric."""
        return [orjson.loads(record.value) for record in self.sent(METRICS)]

    def dead_letters(self) -> list[Mapping[str, str]]:
        """The headers of every dead letter."""
        return [{k: v.decode() for k, v in record.headers} for record in self.sent(DEAD_LETTERS)]

    def row(self, table: str, key: str) -> Any:
        """A committed value of a table, None if there is none."""
        value = self.disks[table].values.get(key.encode())
        return None if value is None else orjson.loads(value)

    def put(self, table: str, key: str, value: Any) -> None:
        """Set a committed value, as if another unit had written it before."""
        self.disks[table].values[key.encode()] = orjson.dumps(value)

    def entry(self, user_id: str, payment_id: str) -> Any:
        """A payment's committed entry, with all of its fields."""
        return read_entry(self.row("payments", payment_key(user_id, payment_id)))


class Triggers:
    """Where the timers append."""

    def __init__(self, lab: OneTask) -> None:
        self._lab = lab

    async def append(self, partition: int, hints: Iterable[tuple[bytes, bytes]]) -> None:
        """Append hints to the source of triggers."""
        for key, value in hints:
            self._lab.append(RETRY, key, value)
