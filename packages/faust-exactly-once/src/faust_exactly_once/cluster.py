"""What Kafka says now: offsets, ids, limits, all blocking, for use in a thread.

Which answers are facts, which are asked for again: `answers.py`.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from .answers import START_S, ask_again, is_offset, is_transient, unknown_topic
from .environment import REAL, Clock, Deadline, Environment
from .errors import KafkaUnavailable, SetupRefused

T = TypeVar("T")
K = TypeVar("K")
TP = tuple[str, int]
RETIRED = 8
FIRST_TRY = 1 / 6  # of a question's time-out: a broker that hangs costs no more, the next try asks anew
AS_BROKERS = -1  # the replication of a new topic: the brokers' default.replication.factor (KIP-464)
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
NONE_COMMITTED = (OFFSET_INVALID, -1)
HANGING_S = 30.0  # how long one opening of a task waits for a foreign transaction before it begins anew
SAY_EVERY_S = 5.0
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # Kafka's own default of max.message.bytes


@dataclass(frozen=True, slots=True)
class LogEnds:
    """One partition's log: first offset, last stable offset (read_committed end), high watermark."""

    start: int
    stable: int
    high: int


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic's id, partition count and the settings that the layer depends on."""

    topic_id: str
    partitions: int
    config: Mapping[str, str]

    @property
    def max_message_bytes(self) -> int:
        """The largest record batch the topic takes."""
        return int(self.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))


class NotHeardOf(KafkaUnavailable):
    """Raised when the broker that was asked does not know a topic that must exist."""


class TooFewBrokers(KafkaUnavailable):
    """Raised when there are fewer brokers than a new topic is to have replicas."""


class Cluster:
    """Questions to one Kafka cluster.

    Each is put again, by a fresh client, while the answer is not a fact; raises KafkaUnavailable if it has
    none within `timeout_s`.
    """

    def __init__(
        self, client_config: Mapping[str, Any], timeout_s: float, environment: Environment = REAL
    ) -> None:
        self._config = {**client_config, "log_level": 0}
        self._timeout_s = timeout_s
        self._clients, self._clock = environment.clients, environment.clock
        self._client: AdminClient | None = None
        self._retired: deque[AdminClient | Consumer] = deque(maxlen=RETIRED)
        self._readers: dict[str, Consumer] = {}
        self._known: set[str] = set()

    def id(self) -> str:
        """The cluster id."""

        def question(client: AdminClient, limit_s: float) -> str:
            found = _answer(client.describe_cluster(request_timeout=limit_s), limit_s).cluster_id
            if not found:
                raise KafkaUnavailable("the broker does not know its cluster's id yet")
            return str(found)

        return self._put(question)

    def session_bounds_ms(self) -> tuple[int, int]:
        """The shortest and the longest session time-out that a broker takes, in milliseconds.

        Raises:
            KafkaUnavailable: no broker says so.
            KafkaException: we may not ask.
        """
        nodes = self._put(lambda client, s: _answer(client.describe_cluster(request_timeout=s), s).nodes)
        limit_s = self._timeout_s / max(1, len(nodes))
        for node in nodes:
            broker = ConfigResource(ResourceType.BROKER, str(node.id))
            futures = self._admin().describe_configs([broker], request_timeout=limit_s)
            try:
                config = _answer(futures[broker], limit_s)
            except KafkaUnavailable:
                continue  # it may be dead: each broker is asked about itself
            low, high = (config[f"group.{end}.session.timeout.ms"].value for end in ("min", "max"))
            return int(low), int(high)
        raise KafkaUnavailable(f"none of {len(nodes)} brokers says which session time-outs it takes")

    def log_ends(self, partitions: Iterable[TP]) -> dict[TP, LogEnds]:
        """First offset, last stable offset, high watermark of each partition (ListOffsets, just now)."""
        tps = list(partitions)
        if not tps:
            return {}

        def question(client: AdminClient, limit_s: float) -> dict[TP, LogEnds]:
            wanted = (
                (OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
                (OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
                (OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED),
            )
            asked = [
                client.list_offsets(
                    {TopicPartition(*tp): spec for tp in tps}, isolation_level=isolation,
                    request_timeout=limit_s,
                )
                for spec, isolation in wanted
            ]  # fmt: skip
            deadline = Deadline(self._clock, limit_s)
            start, stable, high = (
                {(tp.topic, tp.partition): found for tp, found in _answers(futures, deadline).items()}
                for futures in asked
            )
            return {tp: _ends(tp, start[tp], stable[tp], high[tp]) for tp in tps}

        return self._put(question)

    def committed(self, group: str, partitions: Sequence[TP]) -> dict[TP, int | None]:
        """The group's stable committed offsets."""
        found = self.committed_with_metadata(group, partitions)
        return {tp: None if at is None else at[0] for tp, at in found.items()}

    def committed_with_metadata(
        self, group: str, partitions: Sequence[TP]
    ) -> dict[TP, tuple[int, str] | None]:
        """The group's stable committed offsets with their metadata (OffsetFetch, require_stable, KIP-447).

        Waits while a transaction with offsets of the group is being ended. Asked by a consumer that never
        joins: librdkafka's admin client ends the process where the coordinator has moved (its issue 5040).
        """
        wanted = [TopicPartition(*tp) for tp in partitions]

        def question(reader: Consumer, limit_s: float) -> dict[TP, tuple[int, str] | None]:
            try:
                answer = reader.committed(wanted, limit_s)
                found = {(t.topic, t.partition): _offset(t) for t in answer}
            except KafkaException as exc:
                raise KafkaUnavailable(f"committed offsets of {group}: {exc.args[0].str()}") from exc
            missing = sorted(set(partitions) - found.keys())
            if missing:
                raise KafkaUnavailable(f"committed offsets of {group}: none said of {missing}")
            return found

        return self._put(question, lambda: self._reader(group))

    def topics(self, names: Iterable[str], *, expected: Collection[str] = ()) -> dict[str, TopicFacts]:
        """Facts of those of the topics that exist.

        Args:
            expected: those that should exist. They, and what this object has seen or created before, are
                asked for again while the broker that is asked does not know them; then they do not exist.
        """
        wanted = sorted(set(names))
        found: dict[str, TopicFacts] = {}

        def question(client: AdminClient, limit_s: float) -> None:
            deadline = Deadline(self._clock, limit_s)
            found.clear()
            found.update(_described(client, wanted, deadline))
            self._known.update(found)
            missing = sorted((set(expected) | self._known) & set(wanted) - found.keys())
            if missing:
                raise NotHeardOf(f"the broker does not know the topics {missing} (yet)")

        try:
            self._put(question)
        except NotHeardOf:
            self._known.intersection_update(self._known - (set(wanted) - found.keys()))
        return found

    def facts_of(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        """Facts of topics that exist for certain.

        Raises:
            KafkaUnavailable: the broker does not know one of them yet.
        """
        wanted = set(names)
        found = self.topics(wanted, expected=wanted)
        missing = sorted(wanted - found.keys())
        if missing:
            raise KafkaUnavailable(f"the broker does not know the topics {missing} yet")
        return found

    def create(
        self, topics: Sequence[NewTopic], say: Callable[[str], None] | None = None,
        advice: str = "start the missing brokers, or ask for fewer replicas",
    ) -> None:  # fmt: skip
        """Create topics, return when they are known; one that exists meanwhile is left as it is.

        Args:
            say: called with why it takes longer.
            advice: what to do if there are too few brokers for the replicas.

        Raises:
            SetupRefused: the cluster refuses a topic, for 30 s if it may be that a broker is restarting.
        """
        if not topics:
            return

        def question(client: AdminClient, limit_s: float) -> None:
            futures = client.create_topics(list(topics), operation_timeout=limit_s, request_timeout=limit_s)
            deadline = Deadline(self._clock, limit_s)
            for name, future in futures.items():
                _created(name, future, deadline)

        try:
            self._put(question, within_s=max(START_S, self._timeout_s), say=say)
        except TooFewBrokers as exc:
            raise SetupRefused(f"{exc}: {advice}") from exc
        self.facts_of(topic.topic for topic in topics)

    def start_afresh(self) -> None:
        """Ask with new clients next, which know nothing yet of leaders and coordinators."""
        for asked in (self._client, *self._readers.values()):
            if asked is not None:
                self._retire(asked)

    def _put(
        self, question: Callable[[Any, float], T], client: Callable[[], AdminClient | Consumer] | None = None,
        *, within_s: float | None = None, say: Callable[[str], None] | None = None,
    ) -> T:  # fmt: skip
        """The answer; each try after one in vain has a fresh client, and longer than the one before."""
        limit_s = self._timeout_s if within_s is None else within_s
        began = self._clock.monotonic()

        def one_try() -> T:
            gone_s, asked = self._clock.monotonic() - began, (client or self._admin)()
            try:
                return question(asked, min(limit_s - gone_s, max(limit_s * FIRST_TRY, 2 * gone_s)))
            except _NoAnswer as exc:
                self._retire(asked)
                raise KafkaUnavailable(f"the broker did not answer in {limit_s} s") from exc
            except KafkaUnavailable:
                self._retire(asked)
                raise

        return ask_again(one_try, limit_s, say, self._clock)

    def _reader(self, group: str) -> Consumer:
        if group not in self._readers:
            only_stable = {"isolation.level": "read_committed", "enable.auto.commit": False}
            config = {**self._config, **only_stable, "group.id": group}
            self._readers[group] = self._clients.consumer(config)
        return self._readers[group]

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = self._clients.admin(self._config)
        return self._client

    def _retire(self, asked: AdminClient | Consumer) -> None:
        """Ask with a new client next: an old one may hold on to leaders, epochs or a coordinator for ever.

        The old one lives on for a while: other threads may still wait for its answers. One that another
        thread has retired already is not retired twice.
        """
        if asked is self._client:
            self._client = None
            self._retired.append(asked)
        for group, reader in list(self._readers.items()):
            if asked is reader:
                del self._readers[group]
                self._retired.append(asked)


class _NoAnswer(KafkaUnavailable):
    """Raised when one try has taken its time."""


def _answer(future: "Future[T]", limit_s: float) -> T:
    try:
        return future.result(max(0.0, limit_s))
    except TimeoutError as exc:
        raise _NoAnswer from exc
    except KafkaException as exc:
        if is_transient(exc.args[0]):
            raise KafkaUnavailable(exc.args[0].str()) from exc
        raise


def _answers(futures: "Mapping[K, Future[T]]", deadline: Deadline) -> dict[K, T]:
    """All answers; a topic that the broker does not know is one that it has not heard of yet."""
    try:
        return {key: _answer(future, deadline.left_s()) for key, future in futures.items()}
    except KafkaException as exc:
        if unknown_topic(exc.args[0]):
            raise KafkaUnavailable(exc.args[0].str()) from exc
        raise


def _described(client: AdminClient, names: list[str], deadline: Deadline) -> dict[str, TopicFacts]:
    """The topics that the broker that is asked knows, with the settings that perhaps another one tells."""
    found: dict[str, Any] = {}
    futures = client.describe_topics(TopicCollection(names), request_timeout=deadline.left_s())
    for name, future in futures.items():
        try:
            found[name] = _answer(future, deadline.left_s())
        except KafkaException as exc:
            if not unknown_topic(exc.args[0]):
                raise
        else:
            if str(found[name].topic_id) in ("", NO_TOPIC_ID) or not found[name].partitions:
                raise KafkaUnavailable(f"the broker does not know topic {name} in full yet")
    if not found:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    limit_s = max(0.001, deadline.left_s())
    configs = _answers(client.describe_configs(resources, request_timeout=limit_s), deadline)
    settings = {one.name: {key: str(entry.value) for key, entry in configs[one].items()} for one in resources}
    return {n: TopicFacts(str(d.topic_id), len(d.partitions), settings[n]) for n, d in found.items()}


def _created(name: str, future: "Future[Any]", deadline: Deadline) -> None:
    try:
        _answer(future, deadline.left_s())
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            raise TooFewBrokers(f"cannot create topic {name}: {error.str()}") from exc
        if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise SetupRefused(f"cannot create topic {name}: {error.str()}") from exc


def _ends(tp: TP, start: Any, stable: Any, high: Any) -> LogEnds:
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


def _offset(partition: TopicPartition) -> tuple[int, str] | None:
    if partition.error is not None:
        raise KafkaException(partition.error)
    if partition.offset in NONE_COMMITTED:
        return None
    if not is_offset(partition.offset):
        raise KafkaException(KafkaError(KafkaError._NO_OFFSET))  # noqa: SLF001 - librdkafka's public name
    return int(partition.offset), partition.metadata or ""


def wait_stable(
    cluster: Cluster, partitions: Sequence[TP], say: Callable[[str], None], *, also: Sequence[TP] = (),
    clock: Clock = time,
) -> dict[TP, LogEnds]:  # fmt: skip
    """Log ends once nothing is pending: after the fence the last stable offset must be the high watermark.

    `also` are asked in the same round, pending or not.

    Raises:
        KafkaUnavailable: a foreign transaction hangs; its partition is named (point 8).
    """
    deadline = Deadline(clock, HANGING_S)
    said, said_at = "", 0.0
    while True:
        ends = cluster.log_ends([*partitions, *also])
        pending = [tp for tp in partitions if ends[tp].stable != ends[tp].high]
        hanging = ", ".join(f"{topic}-{number} at {ends[topic, number].stable}" for topic, number in pending)
        if not hanging:
            return ends
        if deadline.left_s() < 0:
            raise KafkaUnavailable(f"an open transaction of another producer blocks {hanging}")
        if hanging != said or clock.monotonic() > said_at + SAY_EVERY_S:
            said, said_at = hanging, clock.monotonic()
            say(f"waiting for an open transaction on {hanging}")
        clock.sleep(0.05)
