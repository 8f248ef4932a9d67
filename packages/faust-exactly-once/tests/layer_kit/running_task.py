"""One task of a real layer on a Kafka in memory; when its commit thread runs is the test's choice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.batch import Batch
from faust_exactly_once.commit import Committer
from faust_exactly_once.database import PartitionStore
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.environment import Environment
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.source import Source
from faust_exactly_once.task import Task
from faust_exactly_once.task_stores import TaskStores
from layer_kit.memory_kafka import MemoryDisk, MemoryKafka, MemoryProducer, MemoryStore, Record
from layer_kit.virtual_time import Held, TickingClock, VirtualTimeLoop

TP = ("events", 0)
Handler = Callable[[Record], Awaitable[None]]


class App:
    """What the layer's admission needs of an app: to be there."""


class RunningTask:
    """A running task of a real layer, with its commit thread in the test's hand."""

    def __init__(self, loop: VirtualTimeLoop, store: PartitionStore | None = None, **options: Any) -> None:
        self.loop, self.held = loop, Held()
        self.kafka = MemoryKafka([TP])
        # how long a commit took decides when the next one begins: no matter how busy the machine is
        environment = Environment(clock=TickingClock(loop))
        self.options = Options(client_config={}, environment=environment, **options)
        self.app = App()
        self.layer = Layer(self.app, self.options)
        stores = TaskStores({"t": store or MemoryStore(MemoryDisk(), self.kafka)})
        membership = Membership("group", 1, "member")
        committer = Committer(MemoryProducer(self.kafka), stores, 0, membership, {"t": "log"}, self.options)
        self.source = Source("events", 0, 0, None)
        self.task = Task(self.layer.state, 0, {"events": self.source}, stores, committer, self.held)
        self.assigned = self.layer.assigned_tasks[0] = AssignedTask(
            0, frozenset(["events"]), membership, "running", task=self.task
        )
        loop.call_soon(self.task.start)
        loop.settle()

    def fetch(self, *keys: bytes) -> Batch:
        """A batch of new events."""
        events = [self.kafka.append(TP, key, False) for key in keys]
        got = Fetched(self.task.epoch, events[0].offset, events, len(self.kafka.logs[TP]))
        ((_, batch),) = self.layer.dispatcher.batches({TP: got})
        return batch

    def handle(self, handler: Handler, *keys: bytes) -> None:
        """Fetch, admit new events."""
        self.start(self.fetch(*keys).each(handler))

    def start(self, awaitable: Any) -> asyncio.Task[Any]:
        """Let something run as far as it comes by itself."""
        task = self.loop.create_task(awaitable)
        self.loop.settle()
        return task

    def commit(self, ending: str = "commits") -> None:
        """Let the commit thread do one commit."""
        self.kafka.ending = ending
        self.held.run_next()
        self.kafka.ending = "commits"
        self.loop.settle()
