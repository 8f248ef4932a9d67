"""librdkafka in memory: a transactional producer with its states, whose calls go wrong where a test says so.

What it does in each state, which errors it raises with which flags, is librdkafka's own
(`rdkafka_txnmgr.c`), seen on a real broker too: see `test_failure_matrix_on_kafka.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from faust_exactly_once.facts import TP
from faust_exactly_once.membership import Membership
from faust_exactly_once.units import Outgoing
from layer_kit.memory_kafka import MemoryKafka, Transaction

OnDelivery = Callable[[KafkaError | None, Message], None]
FENCED = KafkaError._FENCED  # noqa: SLF001 - librdkafka's public names for its local errors
FATAL = KafkaError._FATAL  # noqa: SLF001
STATE = KafkaError._STATE  # noqa: SLF001
CONFLICT = KafkaError._CONFLICT  # noqa: SLF001
TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001
INCONSISTENT = KafkaError._INCONSISTENT  # noqa: SLF001
PURGED = KafkaError._PURGE_QUEUE  # noqa: SLF001
EOF = KafkaError._PARTITION_EOF  # noqa: SLF001


class ScriptedKafka(MemoryKafka):
    """A broker with one group, one task's transactional id.

    `happens` is called with the name of each call before it has any effect, with "after ..." before it
    answers: a test makes it raise what librdkafka would, or change what the broker holds. Values in
    `refused` are refused by the broker, those in `too_large` by librdkafka. An aborted transaction leaves
    its records in the log, where they take offsets but are never delivered. Time-outs take no time, but are
    added up.
    """

    def __init__(self, source: TP, happens: Callable[[str], None]) -> None:
        super().__init__([source])
        self.happens = happens
        self.membership = Membership("app", 1, "member-1")
        self.open: Transaction | None = None
        self.open_metadata: dict[TP, str] = {}
        self.metadata: dict[TP, str] = {}
        self.opened = 0
        self.aborted = 0
        self.waited_s = 0.0
        self.answer: Any = None  # of the call that runs in a thread of its own
        self.too_large: set[bytes | None] = set()
        self.client: ScriptedProducer | None = None

    def fence(self) -> int:
        """What InitProducerId does, whoever sends it: a new epoch, the open transaction aborted."""
        self.abort()
        self.epoch += 1
        return self.epoch

    def next_generation(self) -> None:
        """The group rebalances: offsets under the generation before are refused from here on."""
        self.membership = Membership("app", self.membership.generation + 1, "member-1")

    def begun(self) -> Transaction:
        """The open transaction; the first record or offset opens it."""
        self.open = self.open or Transaction()
        return self.open

    def commit(self) -> None:
        """What EndTxn does."""
        transaction, self.open = self.open, None
        if transaction is not None:
            self.take(transaction)
            self.metadata.update(self.open_metadata)

    def abort(self) -> None:
        """End the open transaction without its content."""
        transaction, self.open = self.open, None
        if transaction is not None:
            self.aborted += 1
            for topic, _, _ in transaction.changes:
                self.changelogs.setdefault(topic, []).append(None)
            for topic in {topic for topic, _, _ in transaction.changes}:
                self.changelogs[topic].append(None)

    def end_of(self, topic: str) -> int:
        """The high watermark of a changelog: records of the open transaction included."""
        changes = self.open.changes if self.open is not None else []
        return len(self.changelogs.get(topic, ())) + sum(1 for name, _, _ in changes if name == topic)


class Queued(NamedTuple):
    """A record that librdkafka has taken."""

    record: Outgoing
    on_delivery: OnDelivery


class Report(NamedTuple):
    """What became of it."""

    on_delivery: OnDelivery
    error: KafkaError | None
    message: Message


class ScriptedProducer:
    """Stands where `confluent_kafka.Producer` does."""

    def __init__(self, kafka: ScriptedKafka, config: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._state = "init"
        self._last: KafkaError | None = None
        self._epoch = -1
        self._queue: list[Queued] = []
        self._reports: list[Report] = []
        self._late: list[Report] = []
        self._failed = 0
        self.stuck = False

    def list_topics(self, timeout: float) -> None:
        """A connection."""
        self._call("list_topics")

    def init_transactions(self, timeout_s: float) -> None:
        """InitProducerId."""
        self._call("init")
        self._epoch, self._state = self._kafka.fence(), "ready"
        self._kafka.opened += 1

    def poll(self, timeout_s: float) -> int:
        """Nothing is heard."""
        return 0

    def begin_transaction(self) -> None:
        """Nothing leaves the process."""
        self._call("begin")
        self._require("ready")
        self._state, self._failed, self.stuck = "in transaction", 0, False
        self._reports, self._late = self._late, []

    def produce(
        self, topic: str, value: bytes | None, *, key: bytes | None, on_delivery: OnDelivery,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:  # fmt: skip
        """Queue a record."""
        self._call("produce")
        error = self._why_not_queued(value)
        if error is not None:
            raise KafkaException(error)
        self._queue.append(Queued(Outgoing(topic, key, value, None, headers), on_delivery))

    def produce_batch(
        self, topic: str, messages: list[dict[str, Any]], *, partition: int, on_delivery: OnDelivery
    ) -> int:
        """Queue records; what is not taken says why under `_error`."""
        self._call("produce_batch")
        for message in messages:
            error = self._why_not_queued(message["value"])
            if error is not None:
                message["_error"] = error
                continue
            record = Outgoing(topic, message["key"], message["value"], None if partition < 0 else partition)
            self._queue.append(Queued(record, on_delivery))
        return sum(1 for message in messages if "_error" not in message)

    def flush(self, timeout_s: float) -> int:
        """Send, then report every delivery.

        Raises:
            SystemError: confluent-kafka's disguise of a fatal error that arrives amid delivery reports.
        """
        self._call("flush")
        if self.stuck:
            self._kafka.waited_s += timeout_s
            return len(self._queue)
        self.deliver()
        self._serve()
        if self._state == "fatal":
            raise SystemError("a result with an exception set") from KafkaException(self._last)
        return len(self._queue)

    def send_offsets_to_transaction(
        self, positions: Sequence[TopicPartition], metadata: bytes, timeout_s: float
    ) -> None:
        """AddOffsetsToTxn, TxnOffsetCommit."""
        self._call("offsets", timeout_s)
        self._require("in transaction")
        self._reach_broker()
        if metadata != self._kafka.membership.metadata():
            self.fail(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)
        self._kafka.begun().offsets.update({(p.topic, p.partition): p.offset for p in positions})
        self._kafka.open_metadata = {(p.topic, p.partition): p.metadata or "" for p in positions}
        self._call("after offsets")

    def commit_transaction(self, timeout_s: float) -> None:
        """EndTxn; called again after a time-out it goes on waiting for the same one."""
        self._call("commit", timeout_s)
        self._require("in transaction", "commit not acked")
        if self._state == "in transaction":
            self.deliver()
            self._serve()
            if self._failed:
                self.fail(INCONSISTENT, txn_requires_abort=True)
            self._require("in transaction")
            self._reach_broker()
            self._kafka.commit()
            self._state = "commit not acked"
            self._call("after commit", timeout_s)
        self._state = "ready"

    def abort_transaction(self, timeout_s: float) -> None:
        """EndTxn."""
        self._call("abort", timeout_s)
        self._require("in transaction", "abortable")
        self.purge()
        self._serve()
        self._reach_broker()
        self._kafka.abort()
        self._state = "ready"

    def purge(self) -> None:
        """Forget what is queued; its reports may come as late as with those of the next transaction."""
        self._late += [self._told(queued, KafkaError(PURGED), -1) for queued in self._queue]
        self._queue.clear()

    # -- what a test's script may do to it

    def fail(self, code: int, **flags: bool) -> None:
        """Raise librdkafka's error; its flags say what the producer still takes.

        Raises:
            KafkaException: always.
        """
        raise KafkaException(self.becomes(code, **flags))

    def becomes(self, code: int, **flags: bool) -> KafkaError:
        """Meet an error in the background: fatal or abortable, the next call says so."""
        error = KafkaError(code, "as the test wants", **flags)
        if error.fatal():
            self._state, self._last = "fatal", error
        elif error.txn_requires_abort():
            self._state, self._last = "abortable", error
        return error

    def deliver(self) -> None:
        """Send what is queued; the reports wait for the next flush or abort."""
        queue, self._queue = self._queue, []
        for queued in queue:
            error, offset = self._to_broker(queued.record)
            self._failed += error is not None
            self._reports.append(self._told(queued, error, offset))

    def _to_broker(self, record: Outgoing) -> tuple[KafkaError | None, int]:
        if self._state != "in transaction":
            return KafkaError(PURGED), -1
        if self._epoch != self._kafka.epoch:
            self.becomes(FENCED, fatal=True)
            return KafkaError(PURGED), -1
        try:
            self._call("deliver")
            if record.value in self._kafka.refused:
                self.fail(KafkaError.MSG_SIZE_TOO_LARGE, txn_requires_abort=True)
        except KafkaException as exc:
            return exc.args[0], -1
        return None, self._append(record)

    def _append(self, record: Outgoing) -> int:
        transaction = self._kafka.begun()
        if record.partition is None:
            transaction.records.append(record)
            return len(transaction.records)
        offset = self._kafka.end_of(record.topic)
        transaction.changes.append((record.topic, record.key or b"", record.value))
        return offset

    def _told(self, queued: Queued, error: KafkaError | None, offset: int) -> Report:
        record = queued.record
        message = Message(
            topic=record.topic, partition=record.partition or 0, offset=offset, key=record.key,
            value=record.value, error=error,
        )  # fmt: skip
        return Report(queued.on_delivery, error, message)

    def _serve(self) -> None:
        reports, self._reports = self._reports, []
        # what was purged because of a refused record may well be reported before it
        reports.sort(key=lambda report: report.error is None or report.error.code() != PURGED)
        for report in reports:
            report.on_delivery(report.error, report.message)

    def _call(self, name: str, timeout_s: float = 0.0) -> None:
        self._kafka.client = self
        try:
            self._kafka.happens(name)
        except KafkaException as exc:
            if exc.args[0].code() == TIMED_OUT:
                self._kafka.waited_s += timeout_s
            raise

    def _require(self, *states: str) -> None:
        if self._state in states:
            return
        if self._last is not None and self._state in ("fatal", "abortable"):
            raise KafkaException(self._last)
        raise KafkaException(KafkaError(STATE, f"Operation not valid in state {self._state}"))

    def _why_not_queued(self, value: bytes | None) -> KafkaError | None:
        if self._state == "fatal":
            return KafkaError(FATAL)
        if value in self._kafka.too_large:
            return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
        return None if self._state == "in transaction" else KafkaError(STATE)

    def _reach_broker(self) -> None:
        if self._epoch != self._kafka.epoch:
            self.fail(FENCED, fatal=True)


class ScriptedConsumer:
    """Stands where `confluent_kafka.Consumer` does while changelogs are read."""

    def __init__(self, kafka: ScriptedKafka, config: Mapping[str, Any]) -> None:
        assert "read_committed" == config["isolation.level"]
        self._kafka = kafka
        self._at: dict[TP, int] = {}
        self._polled: list[Message] = []

    def assign(self, places: Iterable[TopicPartition]) -> None:
        """Where to begin."""
        self._at = {(place.topic, place.partition): place.offset for place in places}

    def poll(self, timeout_s: float) -> Message | None:
        """The next record, or the end."""
        self._polled = self._polled or self.consume(1000, timeout_s)
        return self._polled.pop(0) if self._polled else None

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        """What was committed since, then the end."""
        found: list[Message] = []
        for (topic, partition), at in self._at.items():
            log = self._kafka.changelogs.get(topic, [])
            found += [
                Message(topic=topic, partition=partition, offset=offset, key=pair[0], value=pair[1])
                for offset, pair in enumerate(log)
                if offset >= at and pair is not None
            ]
            found.append(Message(topic=topic, partition=partition, offset=len(log), error=KafkaError(EOF)))
            self._at[topic, partition] = len(log)
        return found

    def close(self) -> None:
        """Nothing to give back."""
