"""The transactional producer of one task, on librdkafka."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from .answers import UNKNOWN_TOPIC_S, unknown_topic
from .coordinator_call import CoordinatorMoved, bounded
from .deliveries import Deliveries
from .environment import Deadline
from .errors import (
    ExactlyOnceError,
    KafkaUnavailable,
    OutcomeUnknown,
    RecordRefused,
    TaskFenced,
    TopicUnknown,
    TransactionAborted,
)
from .librdkafka_errors import FENCED, REFUSED, fatal_error, mapped
from .membership import Membership
from .offset_metadata import at_offset, with_reached
from .options import Options
from .producer_config import producer_config
from .units import Outgoing

MARKERS_WITHIN_S = 60.0  # so long after a commit its end markers may be missing, where a broker was killed
IN_USE = "in state UP"  # librdkafka's words for a connection that stood
FIRST_CONTACT = "/bootstrap: "  # the one to an address of the settings: idle later, so brokers close it
HEAR_EVERY_S = 0.1  # a broker that was killed needs longer than this to be back
ADD_OFFSETS_EXTRA_S = 2.0  # beyond librdkafka's own time-out, which it mostly keeps


class ConfluentProducer:
    """One librdkafka producer with a transactional id."""

    def __init__(self, options: Options, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self.offset_metadata = ""  # goes with each committed offset ...
        self.changelog_tags: Mapping[str, str] = {}  # ... with how far each changelog reaches, by its tag
        self.changelogs_reach: dict[str, int] = {}
        self.coordinator: Callable[[], int | None] = _not_known  # of the group, as its member knows it
        self._last_coordinator: int | None = None
        self._unknown_since: dict[str, float] = {}
        self._fenced = ""  # how that was learned
        self.timeout_s = options.request_timeout_s
        self._config = producer_config(options, transactional_id, self._heard)
        self._committed_at: float | None = None
        self._is_cut_off = False
        self._environment = options.environment
        self._clock = options.environment.clock
        self._producer: Producer | None = None
        self._deliveries = Deliveries()

    def init_transactions(self) -> None:
        """Fence earlier producers of the id, ending their transaction (InitProducerId)."""
        self._producer, self._fenced = self._environment.clients.producer(self._config), ""
        self._committed_at, self._is_cut_off = None, False
        with self._mapped_errors(KafkaUnavailable):
            # a connection first: without one librdkafka looks for the coordinator again only after 500 ms
            self._producer.list_topics(timeout=self.timeout_s)
            self._producer.init_transactions(self.timeout_s)

    def begin_transaction(self) -> None:
        """Begin a transaction, if the one before has surely ended everywhere (`_end_if_cut_off`)."""
        self._deliveries = Deliveries()
        with self._mapped_errors(OutcomeUnknown):
            self._live().poll(0)  # lets `_heard` hear
            self._end_if_cut_off()
            self._live().begin_transaction()

    def send(self, records: Iterable[Outgoing]) -> None:
        """Queue records; a topic's plain ones go over in one call."""
        plain: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            if record.headers is None and record.partition is None and record.timestamp_ms is None:
                plain.setdefault(record.topic, []).append({"key": record.key, "value": record.value})
            else:
                # what came before it goes before it: records of one key keep their order
                self._send_batch(record.topic, plain.pop(record.topic, []), -1, self._deliveries.on_record)
                self._send_one(record)
        for topic, messages in plain.items():
            self._send_batch(topic, messages, -1, self._deliveries.on_record)

    def send_changes(self, topic: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Queue one changelog record per key, with the task's partition."""
        messages = [{"key": key, "value": value} for key, value in changes.items()]
        self._send_batch(topic, messages, partition, self._deliveries.on_change)

    def confirm(self) -> dict[str, int]:
        """Wait for every delivery; per changelog topic the offset after its last record.

        A record without an answer may be on its way. An abort would not stop it: it comes after the marker,
        and belongs to the next transaction of the same producer epoch (KIP-890). So nothing is aborted then:
        the next producer's InitProducerId ends the transaction under a new producer epoch, which such a
        record does not have.

        Raises:
            RecordRefused, TopicUnknown: the broker refused a record; the transaction is aborted.
            OutcomeUnknown: not all were delivered in time, or librdkafka gave some up.
        """
        left = self._flush()
        deliveries = self._deliveries
        worst = deliveries.worst()
        if worst is not None:
            failure = self._delivery_failure(*worst)
            if isinstance(failure, TransactionAborted):
                self._abort_surely()
            raise failure
        missing = deliveries.queued - deliveries.confirmed
        if left or missing:
            raise OutcomeUnknown(f"{missing} records not confirmed in {self.timeout_s} s")
        self._unknown_since.clear()
        self.changelogs_reach.update(deliveries.reached)
        return deliveries.reached

    def add_offsets(self, offsets: Mapping[tuple[str, int], int], membership: Membership) -> None:
        """Add the offsets under the member's generation, so that a stale member is refused (KIP-447)."""
        reached = {tag: self.changelogs_reach[log] for log, tag in self.changelog_tags.items()}
        metadata = with_reached(self.offset_metadata, reached)
        positions = [
            TopicPartition(topic, partition, at, at_offset(metadata, topic, at))
            for (topic, partition), at in offsets.items()
        ]
        producer = self._live()

        def add_offsets() -> None:
            self._until_done(
                lambda: producer.send_offsets_to_transaction(positions, membership.metadata(), self.timeout_s)
            )

        # librdkafka forgets the time-out while the group's coordinator is away (its issue 5456), and waits
        # for the broker that it knows as such, wherever that has moved: the member knows better
        before = self.coordinator() if self._last_coordinator is None else self._last_coordinator
        moved = CoordinatorMoved(before, self.coordinator, self._clock.monotonic)
        bounded(add_offsets, self.timeout_s + ADD_OFFSETS_EXTRA_S, moved, self._environment)
        self._last_coordinator = self.coordinator()

    def commit_transaction(self) -> None:
        """Commit the transaction."""
        self._until_done(lambda: self._live().commit_transaction(self.timeout_s))
        self._committed_at = self._clock.monotonic()

    def abort_transaction(self) -> None:
        """Abort the transaction, of which no record may be on its way (see `confirm`).

        Raises:
            OutcomeUnknown: if the broker did not confirm the abort.
        """
        # librdkafka purges what is queued, waits for what is in flight: not to be purged, it may arrive later
        with self._mapped_errors(OutcomeUnknown):
            self._live().abort_transaction(self.timeout_s)

    def _abort_surely(self) -> None:
        """Abort; where a record may be on its way, go on under a new producer epoch: it comes too late.

        Raises:
            OutcomeUnknown: it is not known to be aborted.
        """
        self.abort_transaction()
        if self._deliveries.in_doubt():
            self.close()
            try:
                self.init_transactions()
            except KafkaUnavailable as exc:
                raise OutcomeUnknown(str(exc)) from exc

    def close(self) -> None:
        """End the producer without touching a transaction: the next one of its id fences and aborts it.

        librdkafka's own `close` would try to abort first, so the last reference is dropped instead.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _heard(self, line: str) -> None:
        """Note that a connection that stood has ended soon after a commit; idle ones end after minutes.

        Once a record of the next transaction is in its log, the commit before is complete: the coordinator
        takes no partition into a transaction before all markers of the last one are written.
        """
        lost = IN_USE in line and FIRST_CONTACT not in line
        if lost and self._committed_at is not None and not self._deliveries.confirmed:
            self._is_cut_off |= self._clock.monotonic() - self._committed_at < MARKERS_WITHIN_S

    def _end_if_cut_off(self) -> None:
        """Write nothing more if a broker went away between a commit and the first record after it.

        Kafka answers a commit before its end markers are written. A broker that is killed amid them may call
        the transaction complete without (seen with Kafka 4.4.0). What is written behind such a hole is one
        transaction with what was committed before it, and an abort takes that back. So the producer ends
        before the broker is back, and its coordinator knows of no further transaction that it might abort.

        Raises:
            OutcomeUnknown: the task opens again, which waits for the end of whatever is open in its logs.
        """
        if self._is_cut_off:
            self.close()
            raise OutcomeUnknown("a broker went away just after a commit: its end may not be everywhere")

    def _flush(self) -> int:
        """Wait until every record is delivered or given up; how many are left when the time is up."""
        deadline = Deadline(self._clock, self.timeout_s)
        while True:
            with self._mapped_errors(OutcomeUnknown):
                left = self._live().flush(min(HEAR_EVERY_S, max(deadline.left_s(), 0.0)))
            self._end_if_cut_off()
            if not left or deadline.left_s() <= 0:
                return left

    def _live(self) -> Producer:
        if self._producer is None:
            raise TaskFenced(f"the producer {self.transactional_id} is closed")
        if self._fenced:
            raise TaskFenced(self._fenced)
        return self._producer

    @contextmanager
    def _mapped_errors(self, otherwise: type[ExactlyOnceError]) -> Iterator[None]:
        """Raise the layer's error for one of librdkafka. Fenced once is fenced for good.

        To librdkafka that is mostly fatal, but a coordinator's PRODUCER_FENCED while offsets are added is
        abortable to it (rdkafka_txnmgr.c), so that it would begin again after an abort.
        """
        try:
            yield
        except (KafkaException, SystemError) as exc:
            failure = mapped(fatal_error(exc), otherwise)
            if isinstance(failure, TaskFenced):
                self._fenced = str(failure)
            raise failure from exc

    def _send_one(self, record: Outgoing) -> None:
        kwargs: dict[str, Any] = {"key": record.key, "on_delivery": self._deliveries.on_record}
        if record.partition is not None:
            kwargs["partition"] = record.partition
        if record.headers is not None:
            kwargs["headers"] = list(record.headers)
        if record.timestamp_ms is not None:
            kwargs["timestamp"] = record.timestamp_ms
        self._deliveries.queued += 1
        try:
            self._live().produce(record.topic, record.value, **kwargs)
        except (KafkaException, BufferError) as exc:
            self._give_up(record.topic, exc)

    def _send_batch(
        self, topic: str, messages: list[dict[str, Any]], partition: int, on_delivery: Any
    ) -> None:
        if not messages:
            return
        self._deliveries.queued += len(messages)
        try:
            accepted = self._live().produce_batch(
                topic, messages, partition=partition, on_delivery=on_delivery
            )
        except (KafkaException, BufferError) as exc:
            self._give_up(topic, exc)
        if accepted != len(messages):
            error = next((m["_error"] for m in messages if "_error" in m), None)
            self._give_up(topic, KafkaException(error) if error is not None else BufferError("queue full"))

    def _give_up(self, topic: str, exc: BaseException) -> None:
        """Abort because a record could not even be queued: too large, or an earlier one was refused.

        Raises:
            RecordRefused, TopicUnknown, TransactionAborted: the transaction is aborted.
            OutcomeUnknown: what was queued before may be on its way.
        """
        left = self._flush()
        earlier = self._deliveries.worst()
        if earlier is not None and earlier[0].code() in REFUSED:
            self._abort_surely()
            raise self._delivery_failure(*earlier) from exc
        if isinstance(exc, KafkaException):
            error = exc.args[0]
            if error.code() in REFUSED or unknown_topic(error):
                self._abort_surely()
                where = f"a record for topic {topic} is refused: {error.str()}"
                raise self._refused(error, topic, where) from exc
        where = f"a record for topic {topic} could not be queued: {exc}"
        if left or earlier is not None:
            raise OutcomeUnknown(where) from exc
        self.abort_transaction()
        raise TransactionAborted(where) from exc

    def _delivery_failure(self, error: KafkaError, message: Message) -> ExactlyOnceError:
        topic = message.topic() or ""
        where = f"a record of {len(message.value() or b'')} bytes for topic {topic}: {error.str()}"
        if error.code() in FENCED:
            self._fenced = where
            return TaskFenced(where)
        if error.code() in REFUSED or unknown_topic(error):
            return self._refused(error, topic, where)
        return OutcomeUnknown(where)

    def _refused(self, error: KafkaError, topic: str, where: str) -> TransactionAborted:
        """Refused for good; a topic that a broker does not know only once it has stayed unknown."""
        if not unknown_topic(error):
            return RecordRefused(where)
        now = self._clock.monotonic()
        for_good = now - self._unknown_since.setdefault(topic, now) >= UNKNOWN_TOPIC_S
        return RecordRefused(where) if for_good else TopicUnknown(where)

    def _until_done(self, call: Callable[[], None]) -> None:
        """Run a transactional call, resuming it while librdkafka says it may be resumed."""
        deadline = Deadline(self._clock, self.timeout_s)
        with self._mapped_errors(OutcomeUnknown):
            while True:
                try:
                    return call()
                except KafkaException as exc:
                    error = exc.args[0]
                    if error.txn_requires_abort():
                        with self._mapped_errors(TransactionAborted):
                            if error.code() not in FENCED:  # whoever fenced it has aborted the transaction
                                self.abort_transaction()
                            raise
                    if not error.retriable() or deadline.left_s() < 0:
                        raise


def _not_known() -> None:
    """Where no member says who coordinates the group."""
