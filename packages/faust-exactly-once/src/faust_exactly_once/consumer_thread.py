"""aiokafka in a thread of its own: fetches whole batches under the group's generation."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import aiokafka
from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import InconsistentGroupProtocolError, KafkaError
from faust.transport.drivers import aiokafka as driver

from .brokers import BrokerWatch
from .counts import reason
from .dispatcher import Fetched
from .errors import ExactlyOnceError, SetupRefused
from .facts import TP
from .layer import Layer
from .membership import Membership
from .partition_counts import PartitionCounts

logger = logging.getLogger(f"{__package__}.transport")  # the name under which operators know these lines

FETCH_S = 0.2  # longest wait of one fetch: bounds how late a newly opened task is first asked for
FETCH_RECORDS = 1000  # of one partition
NEVER_MS = 2_147_483_647  # 24 days: a worker that fetches nothing (a spare, a blocked one) stays a member

STOP_S = 4.0  # how long leaving the group, then closing the connections may take
# Events that come one by one would each be fetched alone, by a request that names every partition: that was
# a fifth of a worker's CPU at 200 a second. So brokers gather while events come, for no longer than this.
GATHER_MS = 5
GATHER_BYTES = 64 * 1024
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
    counts: PartitionCounts
    _looking: "asyncio.Task[None] | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._epochs = {}
        super().__init__(*args, **kwargs)

    def take_over(self, assigned: list[TopicPartition]) -> None:
        """Note the generation; pause every partition until its new epoch has sought it.

        Each is given a position, from which nothing is fetched: aiokafka asks the group for the position of
        one without. Where the group has none, and is asked again amid the loss of its coordinator, the
        fetcher dies of the second of two errors that nobody has read.
        """
        self._epochs.clear()
        consumer = self._ensure_consumer()
        coordinator = consumer._coordinator
        self.membership = Membership(self.app.conf.id, coordinator.generation, coordinator.member_id)
        self.has_joined = True
        consumer.pause(*assigned)
        for partition in assigned:
            consumer.seek(partition, 0)
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
                busy = any(got.events for got in found.values())
                _gather(fetcher, busy)
                await self.counts.watch(now=busy)
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
            await self.counts.watch(now=False)

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
        self.counts = PartitionCounts(self.app, consumer, self.brokers, self.check_health)
        return consumer


def _end_of(task: "asyncio.Task[Any]") -> str:
    """Why a background task has ended."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "no reason given" if error is None else reason(error)


def _gather(fetcher: Any, busy: bool) -> None:
    """Say how long brokers gather for the next fetches; the first event after a rest is sent at once."""
    fetcher._fetch_min_bytes = GATHER_BYTES if busy else 1
    fetcher._fetch_max_wait_ms = GATHER_MS if busy else LONG_POLL_MS


def _without_waiting(coroutine: Any) -> dict[Any, list[Any]]:
    """Run a coroutine that has nothing to wait for; one that would wait is given up, having done nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        found: dict[Any, list[Any]] = done.value
        return found
    coroutine.close()
    return {}
