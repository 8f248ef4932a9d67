"""librdkafka's transactional producer on the simulated broker: stands where `confluent_kafka.Producer` does.

What it sends or retries, which errors it raises with which flags, follows librdkafka's `rdkafka_txnmgr.c`,
`rdkafka_request.c`: a request without an answer is sent again; a failed record makes the transaction
abortable; a newer producer makes everything fatal; a commit that timed out may be resumed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from faust_exactly_once.facts import TP
from faust_exactly_once.router import partition_of

from .clock import clock
from .fibers import Fiber, Outcome
from .log import OK, Content, StoredOffset
from .network import LOST

if TYPE_CHECKING:
    from .worker import Worker

OnDelivery = Callable[[KafkaError | None, Message], None]
TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001 - librdkafka's public names for its local errors
FENCED_LOCALLY = KafkaError._FENCED  # noqa: SLF001
STATE = KafkaError._STATE  # noqa: SLF001
PURGED = KafkaError._PURGE_QUEUE  # noqa: SLF001
MESSAGE_TIMED_OUT = KafkaError._MSG_TIMED_OUT  # noqa: SLF001
RETRIED = frozenset({LOST, KafkaError.CONCURRENT_TRANSACTIONS})
FENCED = frozenset({KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
FATAL = FENCED | {KafkaError.INVALID_TXN_STATE, KafkaError.INVALID_PRODUCER_ID_MAPPING}
BACKOFF_S = (0.005, 0.1)  # as the product sets retry.backoff.ms, retry.backoff.max.ms


@dataclass(slots=True, eq=False)
class Queued:
    """A record that was taken, until its delivery is reported."""

    tp: TP
    content: Content
    on_delivery: OnDelivery


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one partition on their way; `dropped`: nobody waits for the answer any more."""

    tp: TP
    sequence: int
    records: list[Queued]
    dropped: bool = False
    tries: int = 0


class SimulatedProducer:
    """One producer instance; everything it does happens while one of its methods runs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._clock = clock()
        self._process: Worker = self._clock.process
        self._network = self._process.network
        self._broker = self._network.broker
        self._id: str = config["transactional.id"]
        self._transaction_s = config["transaction.timeout.ms"] / 1000
        self._message_s = config["message.timeout.ms"] / 1000
        self._queued_at = 0.0
        self._state = "init"
        self._error: KafkaError | None = None
        self._pid, self._epoch = -1, -1
        self._sequences: dict[TP, int] = {}
        self._queue: list[Queued] = []
        self._batches: list[Batch] = []
        self._reports: list[tuple[Queued, KafkaError | None, int]] = []
        self._registered: dict[TP, None] = {}
        self._began = self._must_bump = False
        self._connection = 0
        self._waiting: Fiber | None = None

    # -- the calls of a transaction

    def list_topics(self, timeout: float) -> None:
        """A connection."""
        self._ask("Metadata", lambda reply: reply(OK), self._until(timeout))

    def init_transactions(self, timeout: float) -> None:
        """InitProducerId."""
        self._initialise(self._until(timeout))
        self._state = "ready"

    def poll(self, timeout_s: float) -> int:
        """Nothing is heard."""
        return 0

    def begin_transaction(self) -> None:
        """Nothing leaves the process."""
        self._until(0)
        self._require("ready")
        self._state, self._began, self._registered = "in transaction", False, {}

    def flush(self, timeout: float) -> int:
        """Wait until every record is delivered or has failed, report it; how many are left.

        Raises:
            SystemError: confluent-kafka's disguise of a fatal error that arrives amid delivery reports.
        """
        until_s = self._until(timeout)
        self._deliver(until_s)
        if self._clock.now >= self._queued_at + self._message_s and self._clock.rng.random() < 0.5:
            self._drop_everything(MESSAGE_TIMED_OUT)
        self._serve()
        if self._state == "fatal" and self._clock.rng.random() < 0.5:
            raise SystemError("a result with an exception set") from KafkaException(self._error)
        return len(self._queue) + sum(len(batch.records) for batch in self._batches)

    def send_offsets_to_transaction(
        self, positions: Sequence[TopicPartition], metadata: bytes, timeout: float
    ) -> None:
        """AddOffsetsToTxn, TxnOffsetCommit."""
        until_s = self._until(timeout)
        self._require("in transaction")
        if not self._broker.up and not self._clock.fiber.blocks_its_parent():
            until_s = float("inf")  # librdkafka forgets its time-out without a coordinator (issue 5456)
        broker, me = self._broker, self._me()
        self._began = True
        self._accept(self._ask("AddOffsetsToTxn", lambda reply: reply(broker.add_offsets(*me)), until_s))
        offsets = {(p.topic, p.partition): StoredOffset(p.offset, p.metadata or "") for p in positions}
        member, really = _member(metadata), self._process.member.generation

        def serve(reply: Callable[[Any], None]) -> None:
            reply(broker.commit_offsets(*me, offsets, member, really))

        try:
            code = self._ask("TxnOffsetCommit", serve, until_s)
        except KafkaException:
            code = TIMED_OUT
        self._accept(code)

    def commit_transaction(self, timeout: float) -> None:
        """EndTxn; after a time-out the same call goes on with it."""
        until_s = self._until(timeout)
        self._require("in transaction", "committing")
        if self._state == "in transaction":
            self._deliver(until_s)
            self._serve()
            self._require("in transaction")
            self._state = "committing"
        self._end(True, until_s)

    def abort_transaction(self, timeout: float) -> None:
        """EndTxn, once nothing is in flight. A record given up in flight costs librdkafka no epoch."""
        until_s = self._until(timeout)
        self._require("in transaction", "abortable", "aborting")
        self._state = "aborting"
        queue, self._queue = self._queue, []
        self._fail(queue, PURGED)
        self._deliver(until_s)
        if self._batches:
            raise KafkaException(KafkaError(TIMED_OUT, "in flight", retriable=True))
        if self._clock.rng.random() < 0.5:
            self._serve()  # else the reports of what was purged come during the next transaction
        self._end(False, until_s)

    def forgive(self) -> None:
        """Forget a failed record, as a client would that does not look (for a mutant)."""
        if self._state == "abortable":
            self._state = "in transaction"

    def _end(self, commit: bool, until_s: float) -> None:
        broker, me = self._broker, self._me()
        if self._began:
            code, epoch = self._ask("EndTxn", lambda reply: reply(broker.end(*me, commit)), until_s)
            self._accept(code)
            self._now_has(self._pid, epoch)
            self._began = False
        if self._must_bump:
            self._initialise(until_s, self._pid, self._epoch)
        self._state = "ready"

    def _initialise(self, until_s: float, pid: int = -1, epoch: int = -1) -> None:
        broker, me = self._broker, (self._id, self._transaction_s, pid, epoch)
        answer = self._ask("InitProducerId", lambda reply: reply(broker.init_producer_id(*me)), until_s)
        self._accept(answer[0])
        self._now_has(*answer[1:])
        self._must_bump = False

    def _now_has(self, pid: int, epoch: int) -> None:
        if (pid, epoch) != (self._pid, self._epoch):
            self._sequences = {}
        self._pid, self._epoch = pid, epoch

    def _me(self) -> tuple[str, int, int]:
        return self._id, self._pid, self._epoch

    # -- records

    def produce(
        self, topic: str, value: bytes | None, *, key: bytes | None, on_delivery: OnDelivery,
        partition: int = -1, headers: Any = (),
    ) -> None:  # fmt: skip
        """Queue a record."""
        self._require("in transaction")
        self._put(topic, partition, Content(key, value, headers), on_delivery)

    def produce_batch(
        self, topic: str, messages: list[dict[str, Any]], *, partition: int, on_delivery: OnDelivery
    ) -> int:
        """Queue records; what is not taken says why under `_error`."""
        if self._state != "in transaction":
            for message in messages:
                message["_error"] = self._error or KafkaError(STATE)
            return 0
        for message in messages:
            content = Content(message["key"], message["value"])
            self._put(topic, partition, content, on_delivery)
        return len(messages)

    def purge(self) -> None:
        """Forget what is queued or on its way; what is on its way may be written all the same."""
        self._drop_everything(PURGED)

    def _put(self, topic: str, partition: int, content: Content, on_delivery: OnDelivery) -> None:
        count = self._broker.topics[topic]
        if partition < 0:
            key = content.key
            partition = self._clock.rng.randrange(count) if key is None else partition_of(key, count)
        if not self._queue and not self._batches:
            self._queued_at = self._clock.now
        self._queue.append(Queued((topic, partition), content, on_delivery))

    def _deliver(self, until_s: float) -> None:
        """Send what is queued, a batch a partition; return when all is answered, or at the time."""
        by_partition: dict[TP, list[Queued]] = {}
        for queued in self._queue:
            by_partition.setdefault(queued.tp, []).append(queued)
        if self._register([tp for tp in by_partition if tp not in self._registered], until_s):
            self._queue = []
            for tp, records in by_partition.items():
                at = self._sequences.get(tp, 0)
                self._sequences[tp] = at + len(records)
                self._batches.append(Batch(tp, at, records))
                self._send(self._batches[-1])
        self._waiting = fiber = self._clock.fiber
        timer = self._clock.after(until_s - self._clock.now, fiber.unpark, self._process)
        while self._batches and self._clock.now < until_s:
            fiber.park()
        timer.cancel()

    def _register(self, tps: list[TP], until_s: float) -> bool:
        if not tps:
            return True
        broker, me = self._broker, self._me()
        self._began = True
        try:
            self._accept(
                self._ask("AddPartitionsToTxn", lambda r: r(broker.add_partitions(*me, tps)), until_s)
            )
        except KafkaException:
            if self._state == "fatal":
                self._drop_everything(PURGED)
            return False
        self._registered.update(dict.fromkeys(tps))
        return True

    def _send(self, batch: Batch) -> None:
        broker, me = self._broker, self._me()
        contents = [queued.content for queued in batch.records]

        def serve(reply: Callable[[Any], None]) -> None:
            reply(broker.produce(*me, batch.tp, batch.sequence, contents))

        # one connection: what follows a batch that is held arrives behind it
        way = (self, self._connection)
        self._network.call(self._process, "Produce", serve, lambda answer: self._answered(batch, answer), way)

    def _answered(self, batch: Batch, answer: Any) -> None:
        if batch.dropped:
            return
        if answer == LOST:
            self._connection += 1
            batch.tries += 1
            wait_s = _backoff(batch.tries) * (0.5 + self._clock.rng.random())
            self._clock.after(wait_s, lambda: None if batch.dropped else self._send(batch), self._process)
            return
        code, offset = answer
        self._batches.remove(batch)
        if code == OK:
            self._reports += [(queued, None, offset + i) for i, queued in enumerate(batch.records)]
        else:
            self._batch_failed(batch, code)
        if self._waiting is not None and not self._batches:
            self._waiting.unpark()

    def _batch_failed(self, batch: Batch, code: int) -> None:
        fenced = code in FENCED
        self._becomes("fatal" if fenced else "abortable", code)
        self._must_bump = True  # the broker expects the sequence numbers of this batch
        self._fail(batch.records, PURGED if fenced else code)
        if fenced:
            self._drop_everything(PURGED)

    def _drop_everything(self, code: int) -> None:
        for batch in self._batches:
            batch.dropped = True
            self._fail(batch.records, code)
        self._fail(self._queue, code)
        if code == MESSAGE_TIMED_OUT and (self._batches or self._queue):
            self._becomes("abortable", code)
        self._batches, self._queue = [], []

    def _fail(self, records: list[Queued], code: int) -> None:
        self._reports += [(queued, KafkaError(code, "simulated"), -1) for queued in records]

    def _serve(self) -> None:
        reports, self._reports = self._reports, []
        for queued, error, offset in reports:
            (topic, partition), content = queued.tp, queued.content
            queued.on_delivery(error, Message(
                topic=topic, partition=partition, offset=offset, key=content.key, value=content.value,
                error=error,
            ))  # fmt: skip

    # -- asking, failing

    def _until(self, timeout: float) -> float:
        """When a call must end; each call is a point where others may come first."""
        until_s = self._clock.now + timeout
        if self._process.dead or self._clock.rng.random() < 0.2:
            self._clock.fiber.sleep(self._clock.rng.random() * 0.01)
        if self._state == "fatal":
            raise KafkaException(self._error)
        return until_s

    def _ask(self, api: str, serve: Any, until_s: float) -> Any:
        """Send a request until there is an answer that is not to be retried.

        Raises:
            KafkaException: a time-out; the call may be made again.
        """
        order = self if self._network.in_order else None
        tries = 0
        while self._clock.now < until_s:
            answered = Outcome()
            self._network.call(self._process, api, serve, answered.set_result, order)
            try:
                answer = answered.result(until_s - self._clock.now)
            except TimeoutError:
                break
            if (answer[0] if isinstance(answer, tuple) else answer) not in RETRIED:
                return answer
            tries += 1
            self._clock.fiber.sleep(_backoff(tries) * (0.5 + self._clock.rng.random()))
        raise KafkaException(KafkaError(TIMED_OUT, f"no answer to {api} in time", False, True, False))

    def _accept(self, code: int) -> None:
        """Take an answer.

        Raises:
            KafkaException: it is an error; the producer's state says what may still be done.
        """
        if code != OK:
            raise KafkaException(self._becomes("fatal" if code in FATAL else "abortable", code))

    def _require(self, *states: str) -> None:
        if self._state not in states:
            raise KafkaException(self._error or KafkaError(STATE, f"not valid in state {self._state}"))

    def _becomes(self, state: str, code: int) -> KafkaError:
        if self._state != "fatal":
            fatal = state == "fatal"
            shown = FENCED_LOCALLY if code in FENCED else code
            self._state, self._error = state, KafkaError(shown, "simulated", fatal, False, not fatal)
        assert self._error is not None
        return self._error


def _backoff(tries: int) -> float:
    low, high = BACKOFF_S
    return min(high, low * 2.0**tries)


def _member(metadata: bytes) -> tuple[str, int]:
    """Member id with generation, out of librdkafka's serialised group metadata."""
    generation = int.from_bytes(metadata[7:11], "little", signed=True)
    return metadata[11:].split(b"\0")[1].decode(), generation
