"""What librdkafka's errors mean for the commit."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from faust_exactly_once.coordinator_call import MOVED_S, RETURNED_S, CoordinatorMoved
from faust_exactly_once.environment import Environment
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
