"""What Kafka says now: offsets, ids, limits, all blocking, for use in a thread.

Which answers are facts, which are asked for again: `answers.py`.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from .answers import START_S, ask_again
from .cluster_answers import (
    NoAnswer,
    NotHeardOf,
    T,
    TooFewBrokers,
    answer_of,
    answers_of,
    check_created,
    committed_offset,
    described_topics,
    led,
    log_ends_of,
)
from .environment import REAL, Deadline, Environment
from .errors import KafkaUnavailable, SetupRefused
from .facts import TP, LogEnds, TopicFacts

RETIRED = 8
LEADERS_S = 60.0  # so long after a client has learned where leaders are, it is taken to know them still
FIRST_TRY = 1 / 6  # of a question's time-out: a broker that hangs costs no more, the next try asks anew
AS_BROKERS = -1  # the replication of a new topic: the brokers' default.replication.factor (KIP-464)


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
        # tasks open side by side, each in a thread: without it each made a client, and all but one were
        # dropped while their threads began (a worker ended with SIGSEGV just then)
        self._making = environment.threads.lock()
        self._leaders: tuple[AdminClient | None, float, frozenset[TP]] = None, 0.0, frozenset()

    def id(self) -> str:
        """The cluster id."""

        def question(client: AdminClient, limit_s: float) -> str:
            found = answer_of(client.describe_cluster(request_timeout=limit_s), limit_s).cluster_id
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
        nodes = self._put(lambda client, s: answer_of(client.describe_cluster(request_timeout=s), s).nodes)
        limit_s = self._timeout_s / max(1, len(nodes))
        for node in nodes:
            broker = ConfigResource(ResourceType.BROKER, str(node.id))
            futures = self._admin().describe_configs([broker], request_timeout=limit_s)
            try:
                config = answer_of(futures[broker], limit_s)
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
            deadline = Deadline(self._clock, limit_s)
            self._know_leaders(client, tps, deadline)
            asked = [
                client.list_offsets(
                    {TopicPartition(*tp): spec for tp in tps}, isolation_level=isolation,
                    request_timeout=deadline.time_out_s(),
                )
                for spec, isolation in wanted
            ]  # fmt: skip
            start, stable, high = (
                {(tp.topic, tp.partition): found for tp, found in answers_of(futures, deadline).items()}
                for futures in asked
            )
            return {tp: log_ends_of(tp, start[tp], stable[tp], high[tp]) for tp in tps}

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
                found = {(t.topic, t.partition): committed_offset(t) for t in answer}
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
            found.update(described_topics(client, wanted, deadline))
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
                check_created(name, future, deadline)

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
                left_s = max(0.001, limit_s - gone_s)  # a pause may last too long, on a machine that is busy
                return question(asked, min(left_s, max(limit_s * FIRST_TRY, 2 * gone_s)))
            except NoAnswer as exc:
                self._retire(asked)
                raise KafkaUnavailable(f"the broker did not answer in {limit_s} s") from exc
            except KafkaUnavailable:
                self._retire(asked)
                raise

        return ask_again(one_try, limit_s, say, self._clock)

    def _know_leaders(self, client: AdminClient, tps: Sequence[TP], deadline: Deadline) -> None:
        """Have the client know the leader of each, before it is asked for offsets.

        librdkafka 2.16 looks for leaders that it does not know in the caller's thread, while its own may do
        the same with the same memory, and free it, as soon as metadata come in: SIGSEGV, or a broken heap
        (rdkafka_partition.c, the query of leaders beside a change of the metadata cache).

        Raises:
            KafkaUnavailable: the broker that is asked knows no leader of one of them.
        """
        known_by, at, known = self._leaders
        now = self._clock.monotonic()
        if known_by is client and now - at < LEADERS_S and known.issuperset(tps):
            return
        leaders = led(client, known.union(tps) if known_by is client else tps, deadline)
        self._leaders = client, now, leaders
        missing = sorted(set(tps) - leaders)
        if missing:
            raise KafkaUnavailable(f"no leader is known of {missing}")

    def _reader(self, group: str) -> Consumer:
        with self._making:
            if group not in self._readers:
                only_stable = {"isolation.level": "read_committed", "enable.auto.commit": False}
                config = {**self._config, **only_stable, "group.id": group}
                self._readers[group] = self._clients.consumer(config)
            return self._readers[group]

    def _admin(self) -> AdminClient:
        with self._making:
            if self._client is None:
                self._client = self._clients.admin(self._config)
            return self._client

    def _retire(self, asked: AdminClient | Consumer) -> None:
        """Ask with a new client next: an old one may hold on to leaders, epochs or a coordinator for ever.

        The old one lives on for a while: other threads may still wait for its answers. One that another
        thread has retired already is not retired twice.
        """
        with self._making:
            if asked is self._client:
                self._client = None
                self._retired.append(asked)
            for group, reader in list(self._readers.items()):
                if asked is reader:
                    del self._readers[group]
                    self._retired.append(asked)
