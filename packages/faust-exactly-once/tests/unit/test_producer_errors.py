"""What librdkafka's errors mean for the commit."""

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from faust_exactly_once.coordinator_call import MOVED_S, RETURNED_S, CoordinatorMoved
from faust_exactly_once.environment import REAL, Environment
from faust_exactly_once.errors import (
    ExactlyOnceError,
    KafkaUnavailable,
    MembershipLost,
    OutcomeUnknown,
    RecordRefused,
    TaskFenced,
    TopicUnknown,
)
from faust_exactly_once.librdkafka_errors import mapped
from faust_exactly_once.membership import Membership, check_layout
from faust_exactly_once.options import Options
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.producer_config import producer_config
from faust_exactly_once.units import Outgoing

Expected = type[ExactlyOnceError]


@pytest.mark.parametrize(
    ("code", "fatal", "expected"),
    [
        (KafkaError._FENCED, True, TaskFenced),  # noqa: SLF001 - librdkafka's public names
        (KafkaError.PRODUCER_FENCED, False, TaskFenced),
        (KafkaError.INVALID_PRODUCER_EPOCH, False, TaskFenced),
        (KafkaError.TRANSACTION_COORDINATOR_FENCED, False, TaskFenced),
        (KafkaError.INVALID_PRODUCER_ID_MAPPING, True, TaskFenced),
        (KafkaError.UNKNOWN_PRODUCER_ID, False, TaskFenced),
        (KafkaError.ILLEGAL_GENERATION, False, MembershipLost),
        (KafkaError.UNKNOWN_MEMBER_ID, False, MembershipLost),
        (KafkaError.FENCED_INSTANCE_ID, False, MembershipLost),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, True, OutcomeUnknown),
        (KafkaError._STATE, True, OutcomeUnknown),  # noqa: SLF001
        (KafkaError._TIMED_OUT, False, KafkaUnavailable),  # noqa: SLF001
        (KafkaError.COORDINATOR_NOT_AVAILABLE, False, KafkaUnavailable),
    ],
)
def test_each_error_says_what_its_catcher_does(code: int, fatal: bool, expected: Expected) -> None:
    """Fenced, membership lost, unknown; anything else is what the caller says (point 6, 9)."""
    found = mapped(KafkaException(KafkaError(code, "why", fatal=fatal)), KafkaUnavailable)
    assert expected is type(found)
    assert str(found).endswith(": why")


class Message:
    """A record as a delivery report has it."""

    def value(self) -> bytes:
        """Nine bytes."""
        return b"123456789"

    def topic(self) -> str:
        """Where to."""
        return "results"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._FENCED, TaskFenced),  # noqa: SLF001
        (KafkaError.INVALID_PRODUCER_EPOCH, TaskFenced),
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordRefused),
        (KafkaError.RECORD_LIST_TOO_LARGE, RecordRefused),
        (KafkaError.INVALID_TIMESTAMP, RecordRefused),
        (KafkaError.INVALID_RECORD, RecordRefused),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, RecordRefused),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicUnknown),
        (KafkaError._UNKNOWN_TOPIC, TopicUnknown),  # noqa: SLF001
        (KafkaError._UNKNOWN_PARTITION, TopicUnknown),  # noqa: SLF001
        (KafkaError._MSG_TIMED_OUT, OutcomeUnknown),  # noqa: SLF001
        (KafkaError._PURGE_QUEUE, OutcomeUnknown),  # noqa: SLF001
        (KafkaError.NOT_ENOUGH_REPLICAS, OutcomeUnknown),
    ],
)
def test_a_failed_delivery_names_its_record(code: int, expected: Expected) -> None:
    """Refused for good, fenced, or worth another try; size and topic stand in the text (point 9d)."""
    message: Any = Message()
    producer = ConfluentProducer(Options(client_config={}), "id")
    found = producer._delivery_failure(KafkaError(code, "why"), message)  # noqa: SLF001
    assert expected is type(found)
    assert "a record of 9 bytes for topic results: why" == str(found)


def test_a_topic_that_a_broker_has_not_heard_of_is_refused_only_once_it_stays_so() -> None:
    """Ten seconds of the same answer are a fact; one delivery begins anew."""
    now = [1000.0]
    clock: Any = SimpleNamespace(monotonic=lambda: now[0])
    message: Any = Message()
    producer = ConfluentProducer(Options(client_config={}, environment=Environment(clock=clock)), "id")
    unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "why")
    found = []
    for seconds in (0.0, 5.0, 4.9, 0.1):
        now[0] += seconds
        found.append(type(producer._delivery_failure(unknown, message)))  # noqa: SLF001
    assert [TopicUnknown, TopicUnknown, TopicUnknown, RecordRefused] == found


class Group:
    """A coordinator as the member knows it, a clock that the test moves."""

    def __init__(self, coordinator: int | None) -> None:
        self.coordinator = coordinator
        self.now_s = 1000.0
        self.moved = CoordinatorMoved(coordinator, lambda: self.coordinator, lambda: self.now_s)

    def after(self, seconds: float) -> bool:
        """True if the commit waits in vain so many seconds later."""
        self.now_s += seconds
        return self.moved.in_vain() is not None


def test_a_commit_follows_the_group_s_coordinator_to_another_broker() -> None:
    """librdkafka waits for the dead one for ever; the member has found the next one."""
    group = Group(1)
    assert [False, False] == [group.after(1), group.after(60)], "it only takes long"
    group.coordinator = None
    assert not group.after(60), "nobody knows a better one"
    group.coordinator = 2
    assert [False, True] == [group.after(0.1), group.after(MOVED_S)]


def test_a_coordinator_that_is_back_gets_time_to_be_connected() -> None:
    """Longer than librdkafka's pause between two connections; then its call is known never to return."""
    group = Group(0)
    group.coordinator = None
    assert not group.after(1)
    group.coordinator = 0
    assert [False, False, True] == [group.after(0), group.after(RETURNED_S / 2), group.after(RETURNED_S / 2)]


def test_where_no_member_knows_the_coordinator_only_the_time_out_counts() -> None:
    """A producer outside a worker."""
    assert not any(Group(None).after(60) for _ in range(3))


def test_our_group_metadata_has_the_layout_of_librdkafka() -> None:
    """The bytes that carry the member's generation are librdkafka's own, checked at every start."""
    check_layout()
    expected = b"CGMDv2:\x07\x00\x00\x00group\x00member-1\x00\x01"
    assert expected == Membership("group", 7, "member-1").metadata()


class Recorder:
    """Stands where librdkafka's producer is; notes what is handed over, in order."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, bytes]] = []

    def produce(self, topic: str, value: bytes, **kwargs: Any) -> None:
        """One record."""
        self.keys.append((topic, value))

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], **kwargs: Any) -> int:
        """Many records."""
        self.keys += [(topic, message["value"]) for message in messages]
        return len(messages)


def test_records_of_a_topic_keep_their_order_whatever_they_carry() -> None:
    """A record with headers does not overtake plain ones of its key (contract point 10)."""
    producer = ConfluentProducer(Options(client_config={}), "id")
    recorder: Any = Recorder()
    producer._producer = recorder  # noqa: SLF001 - no broker is needed to see the order
    producer.send([
        Outgoing("r", b"k", b"1"), Outgoing("m", None, b"x"), Outgoing("r", b"k", b"2"),
        Outgoing("r", b"k", b"3", headers=[("h", b"")]), Outgoing("r", b"k", b"4"),
        Outgoing("r", b"k", b"5", partition=1), Outgoing("r", b"k", b"6", timestamp_ms=1),
    ])  # fmt: skip
    assert [b"1", b"2", b"3", b"4", b"5", b"6"] == [value for topic, value in recorder.keys if topic == "r"]
    assert 7 == len(recorder.keys)


class AbortableFence:
    """librdkafka whose coordinator says PRODUCER_FENCED to added offsets: abortable, so it begins again."""

    def send_offsets_to_transaction(self, *_: Any) -> None:
        """AddOffsetsToTxn."""
        raise KafkaException(KafkaError(KafkaError._FENCED, "why", txn_requires_abort=True))  # noqa: SLF001

    def poll(self, timeout_s: float) -> int:
        """Nothing is heard."""
        return 0

    def begin_transaction(self) -> None:
        """Nothing leaves the process."""

    def purge(self) -> None:
        """Nothing is queued."""

    def abort_transaction(self, *_: Any) -> None:
        """No partition was registered: nothing is sent."""


def test_a_producer_that_was_fenced_stays_fenced_whatever_librdkafka_takes() -> None:
    """Nothing is begun, sent or committed with it any more."""
    producer = ConfluentProducer(Options(client_config={}), "id")
    librdkafka: Any = AbortableFence()
    producer._producer = librdkafka  # noqa: SLF001
    with pytest.raises(TaskFenced):
        producer.add_offsets({("t", 0): 1}, Membership("group", 7, "member-1"))
    for call in (
        producer.begin_transaction, producer.confirm, producer.commit_transaction, producer.abort_transaction
    ):  # fmt: skip
        with pytest.raises(TaskFenced, match="why"):
            call()


class CutOff:
    """librdkafka that says of a connection what a test wants, when it is polled or flushed."""

    def __init__(self, producer: ConfluentProducer) -> None:
        self._producer = producer
        self.says = ""
        self.calls: list[str] = []
        self.delivers_first = False
        self._queued: list[Any] = []

    def poll(self, timeout_s: float) -> int:
        """Let the producer hear it."""
        if self.says:
            self._producer._heard(self.says)  # noqa: SLF001
        return 0

    def begin_transaction(self) -> None:
        """Count."""
        self.calls.append("begin")

    def produce_batch(self, topic: str, messages: list[Any], *, partition: int, on_delivery: Any) -> int:
        """Take them."""
        self._queued += [on_delivery] * len(messages)
        return len(messages)

    def flush(self, timeout_s: float) -> int:
        """Deliver one if the test wants it, then let the producer hear, then deliver all or wait."""
        message: Any = None
        if self.delivers_first:
            self._queued.pop()(None, message)
        self.poll(0)
        while self._queued and (self.delivers_first or not self.says):
            self._queued.pop()(None, message)
        return len(self._queued)

    def commit_transaction(self, *_: Any) -> None:
        """It is answered."""
        self.calls.append("commit")

    def abort_transaction(self, *_: Any) -> None:
        """It is answered."""
        self.calls.append("abort")

    def purge(self) -> None:
        """Forget what is queued."""
        self.calls.append("purge")


def cut_off(clock: Any = REAL.clock) -> tuple[ConfluentProducer, CutOff]:
    """A producer on such a librdkafka."""
    options = Options(client_config={}, environment=replace(REAL, clock=clock))
    producer = ConfluentProducer(options, "id")
    librdkafka = CutOff(producer)
    producer._producer = librdkafka  # type: ignore[assignment]  # noqa: SLF001
    return producer, librdkafka


UP = "127.0.0.1:9092/1: Disconnected (after 1200ms in state UP)"
IDLE = "127.0.0.1:9092/bootstrap: Disconnected: connection closed by peer (after 600000ms in state UP)"
CONNECT = "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: refused (after 0ms in state CONNECT)"


@pytest.mark.parametrize(
    ("committed", "text", "later_s", "begins"),
    [(True, UP, 1, False), (True, UP, 61, True), (True, CONNECT, 1, True), (False, UP, 1, True),
     (True, IDLE, 1, True)],
    ids=["just after a commit", "idle for a minute", "never stood", "nothing committed", "first contact"],
)
def test_nothing_is_written_behind_a_commit_whose_end_may_be_missing(
    committed: bool, text: str, later_s: float, begins: bool
) -> None:
    """A broker that is killed amid end markers may forget some: an abort would take back what is there."""
    clock: Any = SimpleNamespace(now_s=100.0, time=time.time, sleep=time.sleep)
    clock.monotonic = lambda: clock.now_s
    producer, librdkafka = cut_off(clock)
    if committed:
        producer.commit_transaction()
    clock.now_s += later_s
    librdkafka.says = text
    if begins:
        producer.begin_transaction()
    else:
        with pytest.raises(OutcomeUnknown, match="its end may not be everywhere"):
            producer.begin_transaction()
    assert begins == ("begin" in librdkafka.calls)


@pytest.mark.parametrize("ends", ["confirm", "a record that is too large"])
def test_a_transaction_that_nothing_was_written_of_is_left_when_a_broker_goes(ends: str) -> None:
    """It is neither waited for nor aborted: both would reach the broker once it is back, behind the hole."""
    producer, librdkafka = cut_off()
    producer.commit_transaction()
    producer.begin_transaction()
    producer.send([Outgoing("results", b"key", b"value", None)])
    librdkafka.says = UP
    with pytest.raises(OutcomeUnknown, match="its end may not be everywhere"):
        if ends == "confirm":
            producer.confirm()
        else:
            producer._give_up("results", BufferError("queue full"))  # noqa: SLF001
    assert ["commit", "begin", "purge"] == librdkafka.calls
    with pytest.raises(TaskFenced):
        producer.commit_transaction()


def test_a_transaction_that_is_being_written_goes_on_when_a_broker_goes() -> None:
    """Its first record was taken, so the commit before is complete; to leave it would only cost time."""
    producer, librdkafka = cut_off()
    producer.commit_transaction()
    producer.begin_transaction()
    producer.send([Outgoing("results", b"key", b"value", None)] * 2)
    librdkafka.says, librdkafka.delivers_first = UP, True
    producer.confirm()
    producer.commit_transaction()
    assert ["commit", "begin", "commit"] == librdkafka.calls


@pytest.mark.parametrize("transaction_timeout_ms", [1_000, 3_500, 15_000, 900_000])
def test_librdkafka_takes_the_settings_with_any_transaction_timeout(transaction_timeout_ms: int) -> None:
    """Short ones, too, as the torture has them: a producer that cannot be made would block every task."""
    options = Options(
        client_config={"bootstrap.servers": "127.0.0.1:1"}, transaction_timeout_ms=transaction_timeout_ms,
        request_timeout_s=min(10.0, transaction_timeout_ms / 1000),
    )  # fmt: skip
    Producer(producer_config(options, "one"))


def test_two_requests_fit_into_a_record_s_time() -> None:
    """One to a frozen leader, one for metadata that goes to the frozen broker, too."""
    config = producer_config(Options(client_config={}), "id")
    assert 2 * config["socket.timeout.ms"] < config["message.timeout.ms"]
