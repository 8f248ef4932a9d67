"""Which offset a consumer would commit, of plain Faust or of the layer, after given deliveries and ends."""

# the book-keeping itself is what the tests are about
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from defects.inside import Plain
from defects.kit import Trouble
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP, ConsumerMessage
from layer_kit.memory_kafka import MemoryDisk, MemoryKafka, MemoryProducer, MemoryStore, Record

from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.commit import Committer
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.options import Options
from faust_exactly_once.source import Source
from faust_exactly_once.task import Task
from faust_exactly_once.task_stores import TaskStores

SOURCE = TP("events", 0)


class Books(Protocol):
    """One source partition of a consumer."""

    async def deliver(self, *offsets: int) -> None:
        """Give events to handlers; an offset left out is a transaction's marker."""

    async def finish(self, offset: int) -> None:
        """Let the handler of an event come to its end."""

    async def commit(self) -> int:
        """Commit what may be committed; where the partition's next owner begins."""

    async def close(self) -> None:
        """End it."""


class FedConsumer(Consumer):
    """Faust's consumer; only the broker is the test."""

    records: tuple[int, ...] = ()
    committed = 0

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """What the group has committed."""
        return {SOURCE: self.committed}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's
        """One fetch."""
        for offset in self.records:
            yield SOURCE, ConsumerMessage(*SOURCE, offset, 0.0, 0, [], b"", b"", None, tp=SOURCE)
        self.fed.set()

    def feed(self, offsets: tuple[int, ...]) -> Any:
        """A fetcher service that lives for one fetch."""
        self.records, self.fed = offsets, asyncio.Event()
        return SimpleNamespace(_stopped=self.fed)


class PlainBooks:
    """Faust's: `perform_seek`, `_drain_messages`, `ack`, `_filter_committable_offsets`."""

    def __init__(self, folder: Path, committed: int) -> None:
        self._plain = Plain(folder, "books", consumer=FedConsumer)
        self._plain.app.topics._acking_topics.add(SOURCE.topic)
        self._consumer = self._plain.consumer
        self._consumer.committed, self._consumer.callback = committed, self._note
        self._messages: dict[int, Any] = {}

    async def _note(self, message: Any) -> None:
        self._messages[message.offset] = message

    async def close(self) -> None:
        """Let go of the consumer."""
        await self._plain.__aexit__()

    async def deliver(self, *offsets: int) -> None:
        """Give events to handlers."""
        await self._consumer.perform_seek()
        await self._consumer._drain_messages(self._consumer.feed(offsets))

    async def finish(self, offset: int) -> None:
        """What the stream does when the agent asks for the next event."""
        if not self._consumer.ack(self._messages[offset]):
            raise Trouble(f"the end of {offset} was not noticed")

    async def commit(self) -> int:
        """The offset that goes into the transaction, else the one committed before."""
        chosen = self._consumer._filter_committable_offsets([SOURCE])
        offset: int = chosen.get(SOURCE, self._consumer.committed)
        return offset


class App:
    """What the layer's admission needs of an app: to be there."""


class OurBooks:
    """The layer's: `Dispatcher.batches`, `Batch.each`, `CommitLoop.commit_once`."""

    def __init__(self, committed: int) -> None:
        self._kafka = MemoryKafka([SOURCE])
        self._kafka.logs[SOURCE] = [None] * committed
        self._kafka.committed[SOURCE] = committed
        self._gates: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._ended: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._app, options, membership = App(), Options(client_config={}), Membership("g", 1, "m")
        self._layer = Layer(self._app, options)
        stores = TaskStores({"t": MemoryStore(MemoryDisk(), self._kafka)})
        committer = Committer(MemoryProducer(self._kafka), stores, 0, membership, {"t": "log"}, options)
        sources = {SOURCE.topic: Source(SOURCE.topic, committed, committed, committed)}
        self._thread = ThreadPoolExecutor(1)
        self._task = Task(self._layer.state, 0, sources, stores, committer, self._thread)
        self._layer.assigned_tasks[0] = AssignedTask(
            0, frozenset([SOURCE.topic]), membership, "running", task=self._task
        )

    async def _handle(self, event: Any) -> None:
        await self._gates[event.offset].wait()
        self._ended[event.offset].set()

    async def deliver(self, *offsets: int) -> None:
        """Give events to handlers, each with a key of its own."""
        start = len(self._kafka.logs[SOURCE])
        records = [Record(*SOURCE, offset, b"%d" % offset) for offset in offsets]
        at = dict(zip(offsets, records, strict=True))
        self._kafka.logs[SOURCE] += [at.get(offset) for offset in range(start, offsets[-1] + 1)]
        fetched = Fetched(self._task.epoch, start, records, offsets[-1] + 1)
        for _, batch in self._layer.dispatcher.batches({SOURCE: fetched}):
            await batch.each(self._handle)

    async def finish(self, offset: int) -> None:
        """Let the handler return."""
        self._gates[offset].set()
        await self._ended[offset].wait()

    async def commit(self) -> int:
        """The offset of the transaction, else the one committed before."""
        await self._task.commits.commit_once()
        return self._kafka.committed[SOURCE] or 0

    async def close(self) -> None:
        """Cancel what still runs."""
        await self._task.close(grace_s=0, last_commit_s=0)
        self._thread.shutdown()


@asynccontextmanager
async def books(layer: str, folder: Path, committed: int) -> AsyncIterator[Books]:
    """The book-keeping of a layer whose group has committed so far."""
    book: Books = OurBooks(committed) if layer == "ours" else PlainBooks(folder, committed)
    try:
        yield book
    finally:
        await book.close()
