"""What one answer of the cluster says, or that it is none."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from .answers import is_offset, is_transient, unknown_topic
from .environment import Deadline
from .errors import KafkaUnavailable, SetupRefused
from .facts import TP, LogEnds, TopicFacts

T = TypeVar("T")

K = TypeVar("K")

NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
NONE_COMMITTED = (OFFSET_INVALID, -1)


class NotHeardOf(KafkaUnavailable):
    """Raised when the broker that was asked does not know a topic that must exist."""


class TooFewBrokers(KafkaUnavailable):
    """Raised when there are fewer brokers than a new topic is to have replicas."""


class NoAnswer(KafkaUnavailable):
    """Raised when one try has taken its time."""


@contextmanager
def _none_yet_if_transient() -> Iterator[None]:
    try:
        yield
    except KafkaException as exc:
        if is_transient(exc.args[0]):
            raise KafkaUnavailable(exc.args[0].str()) from exc
        raise


def answer_of(future: "Future[T]", limit_s: float) -> T:
    """The answer, waited for so long.

    Raises:
        NoAnswer, KafkaUnavailable: there is none yet. KafkaException: a refusal.
    """
    try:
        with _none_yet_if_transient():
            return future.result(max(0.0, limit_s))
    except TimeoutError as exc:
        raise NoAnswer from exc


def answers_of(futures: "Mapping[K, Future[T]]", deadline: Deadline) -> dict[K, T]:
    """All answers; a topic that the broker does not know is one that it has not heard of yet."""
    try:
        return {key: answer_of(future, deadline.left_s()) for key, future in futures.items()}
    except KafkaException as exc:
        if unknown_topic(exc.args[0]):
            raise KafkaUnavailable(exc.args[0].str()) from exc
        raise


def led(client: AdminClient, tps: Iterable[TP], deadline: Deadline) -> frozenset[TP]:
    """Those of the partitions whose leader the client knows; it has just asked a broker.

    Of all topics: where it asks for one that does not exist, a broker may make it.

    Raises:
        KafkaUnavailable: no broker has answered in time. KafkaException: a refusal.
    """
    with _none_yet_if_transient():
        topics = client.list_topics(timeout=deadline.time_out_s()).topics
    found = {
        (name, number): topics[name].partitions.get(number) for name, number in tps if name in topics
    }
    return frozenset(tp for tp, one in found.items() if one is not None and one.leader >= 0)


def described_topics(client: AdminClient, names: list[str], deadline: Deadline) -> dict[str, TopicFacts]:
    """The topics that the broker that is asked knows, with the settings that perhaps another one tells."""
    found: dict[str, Any] = {}
    limit_s = deadline.time_out_s()
    futures = client.describe_topics(TopicCollection(names), request_timeout=limit_s)
    for name, future in futures.items():
        try:
            found[name] = answer_of(future, deadline.left_s())
        except KafkaException as exc:
            if not unknown_topic(exc.args[0]):
                raise
        else:
            if str(found[name].topic_id) in ("", NO_TOPIC_ID) or not found[name].partitions:
                raise KafkaUnavailable(f"the broker does not know topic {name} in full yet")
    if not found:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    limit_s = deadline.time_out_s()
    configs = answers_of(client.describe_configs(resources, request_timeout=limit_s), deadline)
    settings = {one.name: {key: str(entry.value) for key, entry in configs[one].items()} for one in resources}
    return {n: TopicFacts(str(d.topic_id), len(d.partitions), settings[n]) for n, d in found.items()}


def check_created(name: str, future: "Future[Any]", deadline: Deadline) -> None:
    """Pass if the topic was created, or is there already.

    Raises:
        TooFewBrokers, SetupRefused: it was not.
    """
    try:
        answer_of(future, deadline.left_s())
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            raise TooFewBrokers(f"cannot create topic {name}: {error.str()}") from exc
        if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise SetupRefused(f"cannot create topic {name}: {error.str()}") from exc


def log_ends_of(tp: TP, start: Any, stable: Any, high: Any) -> LogEnds:
    """The ends as three answers give them, perhaps of different leaders.

    Raises:
        KafkaUnavailable: an answer has no offset, or they cannot be true together.
    """
    found = LogEnds(start.offset, stable.offset, high.offset)
    where = f"the ends of {tp[0]}-{tp[1]}"
    if not all(is_offset(offset) for offset in (found.start, found.stable, found.high)):
        raise KafkaUnavailable(f"{where} are not known to its leader yet")
    if not found.start <= found.stable <= found.high or stable.leader_epoch != high.leader_epoch:
        raise KafkaUnavailable(f"{where} were told by different leaders ({found})")
    return found


def committed_offset(partition: TopicPartition) -> tuple[int, str] | None:
    """An offset with its metadata, None where nothing is committed.

    Raises:
        KafkaException: the answer is an error, or has no offset.
    """
    if partition.error is not None:
        raise KafkaException(partition.error)
    if partition.offset in NONE_COMMITTED:
        return None
    if not is_offset(partition.offset):
        raise KafkaException(KafkaError(KafkaError._NO_OFFSET))  # noqa: SLF001 - librdkafka's public name
    return int(partition.offset), partition.metadata or ""
