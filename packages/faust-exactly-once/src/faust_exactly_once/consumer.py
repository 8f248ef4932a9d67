"""The group's member in a Faust worker: gives batches to agents, never commits by itself."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.events import Event as FaustEvent
from faust.transport.conductor import Conductor as FaustConductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP
from faust.types import ConsumerMessage

from .batch import Batch
from .brokers import BrokerState
from .consumer_thread import ConsumerDead, ConsumerThread, RebalanceListener
from .counts import reason
from .errors import ExactlyOnceError, SetupRefused
from .facts import TP
from .layer import Layer
from .membership import Membership
from .topic import Topic

logger = logging.getLogger(f"{__package__}.transport")  # the name under which operators know these lines

HEALTH_EVERY_S = 0.5


class Consumer(driver.Consumer):
    """The group's member: delivers batches, never commits by itself."""

    RebalanceListener: ClassVar[Any] = RebalanceListener
    _thread: ConsumerThread
    _health_checked_at = 0.0

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def membership(self) -> Membership:
        """The generation of the last assignment."""
        return self._thread.membership

    async def continue_at(self, offsets: Mapping[TP, int], membership: Membership, epoch: int) -> None:
        """Seek, then let the partitions be fetched."""
        await self._thread.in_loop(self._thread.continue_at(offsets, membership, epoch))

    async def is_member(self, membership: Membership) -> bool:
        """True if a heartbeat just confirmed this generation."""
        return bool(await self._thread.in_loop(self._thread.is_member(membership)))

    def has_contact(self) -> bool:
        """False while the group's coordinator is away: nothing is fetched, the membership may be over."""
        return self._thread.has_contact()

    def silent_s(self) -> float:
        """Seconds for which every broker has owed the answer to a fetch; 0 if none does."""
        return self._thread.silent_s()

    def coordinator(self) -> int | None:
        """The broker that coordinates the group, None while it is not known."""
        return self._thread.coordinator()

    def brokers(self) -> Mapping[int, BrokerState]:
        """What is known of each broker of the cluster, by id; empty before the first assignment."""
        watch = self._thread.brokers
        return {} if watch is None else watch.seen

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Subscribe; a topic that no agent reads would bring events that nobody finishes.

        Raises:
            SetupRefused: such a topic is streamed by something else; the worker stops.
        """
        read = {topic for agent in self.app.agents.values() for topic in agent.channel.topics}
        names = set(topics)
        if names - read:
            refused = SetupRefused(f"{sorted(names - read)} are streamed outside agents: give each an agent")
            await self.app.crash(refused)
            raise refused
        await super().subscribe(names)
        self.add_future(self._look_after_the_first_join())

    async def _look_after_the_first_join(self) -> None:
        """See why the group refuses this member: nothing fetches yet, and aiokafka waits for us to look."""
        while not (self._stopped.is_set() or self._thread.has_joined):
            try:
                await self._thread.in_loop(self._thread.check())
            except (ConsumerDead, SetupRefused) as exc:
                await self._give_up(exc)
                return
            await asyncio.sleep(HEALTH_EVERY_S)

    async def _give_up(self, exc: ExactlyOnceError) -> None:
        logger.critical("the worker stops: %s", exc)
        await self.app.crash(exc)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch until stopped; Faust's fetcher service runs this."""
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            try:
                await self.fetch_once()
            except ConsumerStoppedError:
                return
            except asyncio.CancelledError:
                if self.app.should_stop:
                    return  # Faust would take it for a crash if a rebalance is under way
                raise
            except (ConsumerDead, SetupRefused) as exc:
                await self._give_up(exc)
                return
            except KafkaError as exc:
                logger.warning("fetching failed, trying again: %s", reason(exc), extra={"fold": True})
                await asyncio.sleep(0.5)

    async def fetch_once(self) -> None:
        """One fetch for every task that has room, given to its agents."""
        layer = Layer.of(self.app)
        asked = layer.dispatcher.wanted()
        if not asked:
            await self._idle()
            return
        fetched = await self._thread.in_loop(self._thread.fetch(asked))
        for topic, batch in layer.dispatcher.batches(fetched):
            await self._conductor().give(topic, batch, self.message_of(batch.events[-1]))

    async def _idle(self) -> None:
        """Nothing to ask for: look after the membership all the same."""
        await asyncio.sleep(0.01)
        if self._health_checked_at + HEALTH_EVERY_S < self.loop.time():
            self._health_checked_at = self.loop.time()
            await self._thread.in_loop(self._thread.check())

    def _conductor(self) -> "Conductor":
        conductor = self.app.topics
        assert isinstance(conductor, Conductor)  # noqa: S101 - for the type checker: the transport makes it
        return conductor

    def message_of(self, record: Any) -> ConsumerMessage:
        """A record as Faust's message."""
        message = self._to_message(FaustTP(record.topic, record.partition), record)
        message.refcount = 1
        return message

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """End the task epochs before anything else hears of the rebalance."""
        await Layer.of(self.app).supervisor.revoke()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Let Faust and the layer know, then call the rebalance done."""
        await super().on_partitions_assigned(assigned, generation_id)
        self.app.on_rebalance_end()

    async def wait_empty(self) -> None:
        """The bounded grace of running handlers (unbounded in Faust)."""
        await Layer.of(self.app).supervisor.revoke()

    def ack(self, message: Any) -> bool:
        """Nothing: a unit ends with its handler, not with the batch (defects 10, 11)."""
        return False

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Nothing: tasks commit."""
        return False

    async def commit_and_end_transactions(self) -> None:
        """Nothing: tasks commit."""

    async def verify_all_partitions_active(self) -> None:
        """Nothing: the layer's status says what waits for what."""

    async def perform_seek(self) -> None:
        """Nothing: the layer seeks, also where a partition has never committed, which Faust leaves out."""


class Conductor(FaustConductor):
    """Gives batches to the agents that read a topic."""

    async def give(self, topic: str, batch: Batch, message: ConsumerMessage) -> None:
        """Put a batch, as one Faust event, on the channel of the topic's agent."""
        for channel in list(self._topic_name_index[topic]):
            assert isinstance(channel, Topic)  # noqa: S101 - for the type checker: setting Topic is ours
            await channel.batch_put(FaustEvent(self.app, None, batch, None, message))
