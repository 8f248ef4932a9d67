"""What the broker says now: offsets, ids, limits, all blocking, for use in a thread."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
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

from .errors import KafkaUnavailable, SetupRefused

T = TypeVar("T")
TP = tuple[str, int]
RETIRED = 8
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


class Cluster:
    """Questions to one Kafka cluster."""

    def __init__(self, client_config: Mapping[str, Any], timeout_s: float) -> None:
        self._config = {**client_config, "log_level": 0}
        self._timeout_s = timeout_s
        self._client: AdminClient | None = None
        self._retired: deque[AdminClient | Consumer] = deque(maxlen=RETIRED)
        self._readers: dict[str, Consumer] = {}

    def id(self) -> str:
        """The cluster id."""
        return str(self._ask(self._admin().describe_cluster()).cluster_id)

    def session_bounds_ms(self) -> tuple[int, int]:
        """The shortest and the longest session time-out that a broker takes, in milliseconds."""
        node = self._ask(self._admin().describe_cluster()).nodes[0]
        broker = ConfigResource(ResourceType.BROKER, str(node.id))
        config = self._ask(self._admin().describe_configs([broker])[broker])
        low, high = (config[f"group.{end}.session.timeout.ms"].value for end in ("min", "max"))
        return int(low), int(high)

    def log_ends(self, partitions: Iterable[TP]) -> dict[TP, LogEnds]:
        """First offset, last stable offset, high watermark of each partition (ListOffsets, just now)."""
        tps = list(partitions)
        asked = [
            self._ask_offsets(tps, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
            self._ask_offsets(tps, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
            self._ask_offsets(tps, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED),
        ]
        start, stable, high = ({tp: self._ask(f).offset for tp, f in futures.items()} for futures in asked)
        return {tp: LogEnds(start[tp], stable[tp], high[tp]) for tp in tps}

    def committed(self, group: str, partitions: Sequence[TP]) -> dict[TP, int | None]:
        """The group's stable committed offsets."""
        found = self.committed_with_notes(group, partitions)
        return {tp: None if at is None else at[0] for tp, at in found.items()}

    def committed_with_notes(self, group: str, partitions: Sequence[TP]) -> dict[TP, tuple[int, str] | None]:
        """The group's stable committed offsets with their metadata (OffsetFetch, require_stable, KIP-447).

        Waits while a transaction with offsets of the group is being ended. Asked by a consumer that never
        joins: librdkafka's admin client ends the process where the coordinator has moved (its issue 5040).
        """
        wanted = [TopicPartition(*tp) for tp in partitions]
        try:
            answer = self._reader(group).committed(wanted, self._timeout_s)
            return {(t.topic, t.partition): _offset(t) for t in answer}
        except KafkaException as exc:
            self._start_afresh()
            raise KafkaUnavailable(f"committed offsets of {group}: {exc.args[0].str()}") from exc

    def topics(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        """Facts of those of the topics that exist."""
        wanted = sorted(set(names))
        found: dict[str, Any] = {}
        for name, future in self._admin().describe_topics(TopicCollection(wanted)).items():
            try:
                found[name] = self._ask(future)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        configs = self._configs(found)
        return {n: TopicFacts(str(d.topic_id), len(d.partitions), configs[n]) for n, d in found.items()}

    def create(self, topics: Sequence[NewTopic]) -> None:
        """Create topics, return when the broker knows them; one that exists meanwhile is left as it is."""
        if not topics:
            return
        for name, future in (
            self._admin().create_topics(list(topics), operation_timeout=self._timeout_s).items()
        ):
            try:
                self._ask(future)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise SetupRefused(f"cannot create topic {name}: {exc.args[0].str()}") from exc
        self._wait_known({topic.topic for topic in topics})

    def _wait_known(self, names: set[str]) -> None:
        """KRaft answers a creation, ours or another worker's, before the broker has applied it."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            self._start_afresh()  # one that asked for a missing topic believes for 30 s that it is missing
            missing = names - self.topics(names).keys()
            if not missing:
                return
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"the broker does not know the new topics {sorted(missing)} yet")
            time.sleep(0.05)

    def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        futures = self._admin().describe_configs(resources)
        return {
            resource.name: {k: str(v.value) for k, v in self._ask(future).items()}
            for resource, future in futures.items()
        }

    def _ask_offsets(
        self, tps: list[TP], spec: OffsetSpec, isolation: IsolationLevel
    ) -> "dict[TP, Future[Any]]":
        wanted = {TopicPartition(*tp): spec for tp in tps}
        if not wanted:
            return {}
        futures = self._admin().list_offsets(
            wanted, isolation_level=isolation, request_timeout=self._timeout_s
        )
        return {(tp.topic, tp.partition): future for tp, future in futures.items()}

    def _reader(self, group: str) -> Consumer:
        if group not in self._readers:
            only_stable = {"isolation.level": "read_committed", "enable.auto.commit": False}
            self._readers[group] = Consumer({**self._config, **only_stable, "group.id": group})
        return self._readers[group]

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient(self._config)
        return self._client

    def _ask(self, future: "Future[T]") -> T:
        try:
            return future.result(self._timeout_s)
        except TimeoutError as exc:
            self._start_afresh()
            raise KafkaUnavailable(f"the broker did not answer in {self._timeout_s} s") from exc
        except KafkaException as exc:
            if exc.args[0].code() in UNAVAILABLE:
                self._start_afresh()
                raise KafkaUnavailable(exc.args[0].str()) from exc
            raise

    def _start_afresh(self) -> None:
        """Ask with a new client next: an old one may hold on to leaders, epochs or a coordinator for ever.

        The old one lives on for a while: other threads may still wait for its answers.
        """
        if self._client is not None:
            self._retired.append(self._client)
        self._retired.extend(self._readers.values())
        self._client, self._readers = None, {}


UNAVAILABLE = frozenset({
    KafkaError._NOENT,  # noqa: SLF001 - librdkafka's public names for its local errors; "no leaders found"
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._WAIT_COORD,  # noqa: SLF001
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip


def _offset(partition: TopicPartition) -> tuple[int, str] | None:
    if partition.error is not None:
        raise KafkaException(partition.error)
    if partition.offset in (OFFSET_INVALID, -1):
        return None
    return int(partition.offset), partition.metadata or ""


def wait_stable(
    cluster: Cluster, partitions: Sequence[TP], say: Callable[[str], None], *, beside: Sequence[TP] = ()
) -> dict[TP, LogEnds]:
    """Log ends once nothing is pending: after the fence the last stable offset must be the high watermark.

    `beside` are asked in the same round, pending or not.

    Raises:
        KafkaUnavailable: a foreign transaction hangs; its partition is named (point 8).
    """
    deadline = time.monotonic() + HANGING_S
    said, said_at = "", 0.0
    while True:
        ends = cluster.log_ends([*partitions, *beside])
        pending = [tp for tp in partitions if ends[tp].stable != ends[tp].high]
        hanging = ", ".join(f"{topic}-{number} at {ends[topic, number].stable}" for topic, number in pending)
        if not hanging:
            return ends
        if time.monotonic() > deadline:
            raise KafkaUnavailable(f"an open transaction of another producer blocks {hanging}")
        if hanging != said or time.monotonic() > said_at + SAY_EVERY_S:
            said, said_at = hanging, time.monotonic()
            say(f"waiting for an open transaction on {hanging}")
        time.sleep(0.05)
