"""Faust's transport plug-in: fetches whole batches for the layer's tasks, under the group's generation."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, ClassVar

import aiokafka
from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import (
    ConsumerStoppedError,
    InconsistentGroupProtocolError,
    KafkaError,
    NodeNotReadyError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest
from faust.events import Event as FaustEvent
from faust.transport import base
from faust.transport.conductor import Conductor as FaustConductor
from faust.transport.consumer import TransactionManager as FaustTransactionManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP
from faust.types import ConsumerMessage

from .batch import Batch
from .brokers import BrokerState, BrokerWatch
from .cluster import TP
from .counts import reason
from .dispatcher import Fetched
from .errors import ExactlyOnceError, NoUnit, SetupRefused
from .layer import Layer
from .membership import Membership
from .topic import Topic

logger = logging.getLogger(__name__)

FETCH_S = 0.2  # longest wait of one fetch: bounds how late a newly opened task is first asked for
FETCH_RECORDS = 1000  # of one partition
HEALTH_EVERY_S = 0.5
COUNT_EVERY_S = 1.0  # how often the partition counts are asked for while there is nothing to handle
COUNT_CONFIRM_S = 5.0  # so long every answer has another count before it is believed: a broker may be behind
RETRY_S = 0.2
NEVER_MS = 2_147_483_647  # 24 days: a worker that fetches nothing (a spare, a blocked one) stays a member
STOP_S = 4.0  # how long leaving the group, then closing the connections may take
LONG_POLL_MS = 150  # an outstanding long poll delays the first fetch of a newly opened task by this


class ConsumerDead(ExactlyOnceError):
    """Raised when aiokafka has given up: the worker stops, a restart begins anew."""


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Learns the generation of each assignment; nothing is fetched before the layer says where from."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Pause what was assigned, then let Faust and the layer know."""
        thread = self._thread
        assert isinstance(thread, ConsumerThread)  # noqa: S101 - for the type checker: ours makes ours
        thread.take_over(list(assigned))
        await super().on_partitions_assigned(assigned)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka in a thread and event loop of its own."""

    membership: Membership
    has_joined = False  # there was an assignment
    brokers: BrokerWatch | None = None
    _epochs: dict[TP, int]
    _counted_at = 0.0
    _looking: "asyncio.Task[None] | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._epochs = {}
        super().__init__(*args, **kwargs)

    def take_over(self, assigned: list[TopicPartition]) -> None:
        """Note the generation; pause every partition until its new epoch has sought it."""
        self._epochs.clear()
        coordinator = self._ensure_consumer()._coordinator
        self.membership = Membership(self.app.conf.id, coordinator.generation, coordinator.member_id)
        self.has_joined = True
        self._ensure_consumer().pause(*assigned)
        if self._looking is None and self.brokers is not None:
            self._looking = self.thread_loop.create_task(self.brokers.run())

    def _stopped_set(self) -> None:
        """Ask the thread to stop, which a crash may have ended before."""
        try:
            super()._stopped_set()
        except RuntimeError:  # its loop is closed
            self._stopped.set()

    async def on_thread_stop(self) -> None:
        """Leave the group, close the connections, for as long as the broker lets us.

        Without its broker aiokafka waits for the coordinator, or ends in a cancellation of its own (that of
        a fetch which pauses before the next try): the thread would die of it without a word to Faust.
        """
        if self._looking is not None:
            self._looking.cancel()
        stopping = self.thread_loop.create_task(super().on_thread_stop())
        await asyncio.wait([stopping], timeout=STOP_S)
        if not stopping.done():
            logger.warning("leaving the consumer group without notice: Kafka is silent for %.0f s", STOP_S)
            stopping.cancel()  # once more by the thread's own clean-up: aiokafka may swallow the first
        elif not stopping.cancelled():
            stopping.result()

    async def in_loop(self, coroutine: Any) -> Any:
        """Run a coroutine in the thread's loop, await its result here."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop)
        return await asyncio.wrap_future(future)

    async def fetch(self, wanted: Iterable[TP]) -> dict[TP, Fetched]:
        """What is there of the wanted partitions; waits a while if that is nothing."""
        self.check_health()
        fetcher = self._ensure_consumer()._fetcher
        tps = list(wanted)
        ends = self.thread_loop.time() + FETCH_S
        while True:
            found = self._take(tps)
            left_s = ends - self.thread_loop.time()
            if left_s <= 0 or any(got.end > got.start or got.error for got in found.values()):
                await self.watch_partitions(now=any(got.events for got in found.values()))
                return found
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=left_s)
            if not done:
                waiter.cancel()

    def _take(self, wanted: Iterable[TP]) -> dict[TP, Fetched]:
        """Drain what aiokafka holds, with the position before and after; without any await in between.

        aiokafka's own `getmany` waits out a rebalance in the middle, after which it hands the records of a
        new epoch to the call of the old one; one partition's error makes it drop another's records.
        """
        subscriptions = self._ensure_consumer()._fetcher._subscriptions
        assignment = subscriptions.subscription.assignment
        if subscriptions.reassignment_in_progress or assignment is None or not assignment.active:
            return {}
        with subscriptions.fetch_context():
            return {
                tp: self._take_one(tp, state)
                for tp in wanted
                if tp in self._epochs
                and (state := assignment.state_value(TopicPartition(*tp))) is not None
                and state.has_valid_position
            }

    def _take_one(self, tp: TP, state: Any) -> Fetched:
        epoch, start = self._epochs[tp], state.position
        partition = TopicPartition(*tp)
        fetcher = self._ensure_consumer()._fetcher
        try:
            drained = _without_waiting(fetcher.fetched_records({partition}, 0, FETCH_RECORDS))
        except Exception as exc:
            # aiokafka would go on behind what it could not read: nothing more before the next seek
            del self._epochs[tp]
            return Fetched(epoch, start, [], start, exc)
        return Fetched(epoch, start, drained.get(partition, []), state.position, log_end=state.lso)

    async def watch_partitions(self, *, now: bool) -> None:
        """Ask for the sources' partition counts: after each fetch that brought events, else every second.

        What was sent under a grown count can only be fetched after the growth: the broker, asked after the
        fetch, tells of it before any such event is handled. While it does not answer, or does not know a
        topic yet, they wait; so they do until another count is sure.

        Raises:
            SetupRefused: a count has changed: each answer within 5 s says so.
        """
        if not now and self._counted_at + COUNT_EVERY_S > self.thread_loop.time():
            return
        differs_since: float | None = None
        while True:
            try:
                counts = await self._partition_counts()
            except KafkaError as exc:
                self._say_uncounted(exc)
                self.check_health()
                await asyncio.sleep(RETRY_S)
                continue
            layer, now_s = Layer.of(self.app), self.thread_loop.time()
            try:
                layer.check_partitions(counts)
            except SetupRefused:
                differs_since = now_s if differs_since is None else differs_since
                if now_s - differs_since >= COUNT_CONFIRM_S:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            self._counted_at = now_s
            return

    def _say_uncounted(self, exc: KafkaError) -> None:
        """One line a minute, whatever the errors are: a coordinator that moves has several."""
        logger.info(
            "the partition counts are not known: nothing is handled until the group's coordinator says them",
            extra={"fold": True, "error": reason(exc)},
        )

    async def _partition_counts(self) -> dict[str, int]:
        """The sources' partition counts as the group's coordinator knows them now.

        Not over the connection for fetching: there the answer would wait behind a long poll.

        Raises:
            KafkaError: it does not answer, or does not know each topic (yet).
        """
        consumer = self._ensure_consumer()
        node, topics = consumer._coordinator.coordinator_id, sorted(consumer.subscription())
        if node is None:
            raise NodeNotReadyError("the group's coordinator is not known")
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        answer = await consumer._client.send(node, request, group=ConnectionGroup.COORDINATION)
        if self.brokers is not None:
            self.brokers.heard(answer.brokers, answer.topics)
        return counts_of(answer.topics, topics)

    def check_health(self) -> None:
        """Let aiokafka go on after a group error, which it wants to be seen first.

        Raises:
            ConsumerDead: one of its background tasks has ended.
            SetupRefused: Kafka does not let it into the group, whose members are of another format.
        """
        consumer = self._ensure_consumer()
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        try:
            coordinator.check_errors()
        except InconsistentGroupProtocolError as exc:
            raise SetupRefused(
                f"workers of a release that cannot run beside this one are in the group {self.app.conf.id}: "
                f"{Layer.of(self.app).options.group_advice}"
            ) from exc
        except KafkaError as exc:
            logger.warning("consumer group: %s; trying again", reason(exc), extra={"fold": True})
        for task in (coordinator._coordination_task, fetcher._fetch_task):
            if task is not None and task.done() and not consumer._closed:
                raise ConsumerDead(f"the Kafka consumer has ended ({_end_of(task)}): restart the worker")

    async def check(self) -> None:
        """What `fetch` checks, while there is nothing to fetch."""
        self.check_health()
        if self.has_joined:
            await self.watch_partitions(now=False)

    async def continue_at(self, offsets: Mapping[TP, int], membership: Membership, epoch: int) -> None:
        """Seek, then resume, unless the group has moved on; then records belong to this epoch."""
        consumer = self._ensure_consumer()
        if consumer._coordinator.generation != membership.generation:
            return
        for tp, offset in offsets.items():
            partition = TopicPartition(*tp)
            if partition in consumer.assignment():
                consumer.seek(partition, offset)
                consumer.resume(partition)
                self._epochs[tp] = epoch

    def has_contact(self) -> bool:
        """False while the group's coordinator is not known; aiokafka forgets it when a heartbeat fails."""
        consumer = self._consumer
        return consumer is not None and consumer._coordinator.coordinator_id is not None

    def silent_s(self) -> float:
        """Seconds for which every broker has owed the answer to a fetch, the least of them; 0 if none does.

        A broker that hangs keeps its connections: aiokafka notices it only when a request times out. One
        that lives answers a fetch after LONG_POLL_MS at the latest. Joining the group, which may take long,
        has a connection of its own.
        """
        if self._consumer is None:
            return 0.0
        connections = tuple(self._consumer._client._conns.items())  # another thread changes it
        fetching = [one for (_, group), one in connections if group == ConnectionGroup.DEFAULT]
        now_s = time.monotonic()
        return min((now_s - one._last_action for one in fetching if one._requests), default=0.0)

    def coordinator(self) -> int | None:
        """The broker that coordinates the group, None while it is not known."""
        found = None if self._consumer is None else self._consumer._coordinator.coordinator_id
        return None if found is None else int(found)

    async def is_member(self, membership: Membership) -> bool:
        """True if a heartbeat just confirmed this generation."""
        coordinator = self._ensure_consumer()._coordinator

        def same() -> bool:
            now = Membership(membership.group, coordinator.generation, coordinator.member_id)
            return now == membership and not coordinator._rejoin_needed_fut.done()

        return same() and bool(await coordinator._do_heartbeat()) and same()

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Nothing: the layer's status says what waits for what."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        consumer = aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self.app.assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # point 7: the layer decides where a task starts, never a default
            max_poll_interval_ms=NEVER_MS,
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=LONG_POLL_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            retry_backoff_ms=200,  # while the broker is away each try is a line in the log
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            isolation_level="read_committed",
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )
        self.brokers = BrokerWatch(consumer._client)
        return consumer


def counts_of(topics: Iterable[Any], wanted: Iterable[str]) -> dict[str, int]:
    """Partition counts in a metadata answer.

    Raises:
        KafkaError: the broker does not know one of the wanted topics, or says nothing of it.
    """
    found: dict[str, int] = {}
    for error, topic, _, partitions in topics:
        if error:
            raise for_code(error)(f"the group's coordinator has no metadata of topic {topic} yet")
        found[topic] = len(partitions)
    missing = sorted(set(wanted) - found.keys())
    if missing:
        raise NodeNotReadyError(f"the group's coordinator says nothing of the topics {missing}")
    return found


def _end_of(task: "asyncio.Task[Any]") -> str:
    """Why a background task has ended."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "no reason given" if error is None else reason(error)


def _without_waiting(coroutine: Any) -> dict[Any, list[Any]]:
    """Run a coroutine that has nothing to wait for; one that would wait is given up, having done nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        found: dict[Any, list[Any]] = done.value
        return found
    coroutine.close()
    return {}


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


class TransactionManager(FaustTransactionManager):
    """Refuses what would go past a unit; the tasks have the transactions."""

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Nothing: the layer ended its task epochs before."""

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any) -> None:
        """Nothing: the layer opens its tasks."""

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Refuse: this is Faust's path around a unit."""
        raise NoUnit(f"a send to {topic} outside a handler's unit is in no transaction")

    async def send_and_wait(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Refuse, like `send`."""
        raise NoUnit(f"a send to {topic} outside a handler's unit is in no transaction")

    async def commit(self, offsets: Any, start_new_transaction: bool = True) -> bool:
        """Nothing: tasks commit."""
        return False


class Producer(driver.Producer):
    """Faust's plain producer: for commands such as `faust send`, never inside a worker."""

    async def on_start(self) -> None:
        """Connect only outside a worker: in one nothing may go out untransacted."""
        if not self.app.in_worker:
            await super().on_start()

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Send outside a worker; refuse inside."""
        if self.app.in_worker:
            raise NoUnit(f"a send to {topic} outside a handler's unit is in no transaction")
        return await super().send(topic, *args, **kwargs)


class Transport(base.Transport):
    """Selected by broker URLs that start with `exactly-once://` (entry point group `faust.transports`)."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer
    Conductor: ClassVar[Any] = Conductor
    TransactionManager: ClassVar[Any] = TransactionManager

    default_port = 9092
    driver_version = f"{driver.Transport.driver_version}, confluent-kafka"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topic_waiters: dict[str, Any] = {}
