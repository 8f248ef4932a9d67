"""Reads topics as a read_committed reader sees them, each partition up to a given offset."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from faust_exactly_once import Cluster, KafkaUnavailable
from streamsocial_billing.kafka.answering_brokers import advice, answering
from streamsocial_billing.settings import Settings

T = TypeVar("T")
Place = tuple[str, int]
"""Topic, partition."""

ANSWER_WITHIN_S: Final = 6.0
"""After so long without an answer, from whichever broker, it is looked whether any of them answers at all."""
PATIENCE_S: Final = 15.0
"""How long a question is asked while one does: longer than a leader takes to move (Kafka's default: 9 s)."""
KNOWN_AFTER_S: Final = 3.0
"""How long a topic may be unknown before it does not exist: a broker may not have heard of it yet."""
ASK_AGAIN_S: Final = 0.1
STALL_S: Final = 30.0
"""How long a partition may give nothing before its end is reached."""
BATCH_RECORDS: Final = 5000
START_A_WORKER: Final = "start a worker first: it creates the topics"


class KafkaProblem(Exception):
    """Raised when Kafka cannot be read or written as asked: one line that names what to do.

    `exit_code` is what a command that it ends has.
    """

    exit_code = 1


class CommittedLog:
    """One reader of committed records; it belongs to no group, so it moves nobody's offsets."""

    def __init__(self, settings: Settings, within_s: float = PATIENCE_S) -> None:
        """`within_s`: how long each question is asked while any broker answers."""
        self._settings = settings
        self._within_s = within_s
        self._cluster = self._new_cluster(min(within_s, ANSWER_WITHIN_S))

    def partitions(self, names: Iterable[str]) -> dict[str, int]:
        """The partition count of each of these full topic names; raises KafkaProblem if one is missing."""
        wanted = list(names)
        found = dict(self._ask(lambda: self._cluster.topics(wanted)))
        unknown = [name for name in wanted if name not in found]
        if unknown:  # by one broker, which may not have heard of them yet
            patient = self._new_cluster(KNOWN_AFTER_S)
            found |= self._ask(lambda: patient.topics(unknown, expected=unknown))
        for name in unknown:
            if name not in found:
                raise KafkaProblem(f"topic {name} does not exist: {START_A_WORKER}")
        return {name: found[name].partitions for name in wanted}

    def ends(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """First offset, last stable offset of each place, as the broker says now."""
        asked = list(places)
        ends = self._ask(lambda: self._cluster.log_ends(asked))
        return {place: (one.start, one.stable) for place, one in ends.items()}

    def lag(self, group: str, ends: Mapping[Place, tuple[int, int]]) -> dict[Place, int]:
        """Offsets between the group's committed ones and these ends, only where there are any."""
        committed = self.committed(group, ends)
        behind = {place: stable - committed[place] for place, (_, stable) in ends.items()}
        return {place: count for place, count in behind.items() if count > 0}

    def committed(self, group: str, ends: Mapping[Place, tuple[int, int]]) -> dict[Place, int]:
        """The group's committed offset of each place; its log's first one where nothing was committed."""
        found = self._ask(lambda: self._cluster.committed(group, list(ends)))
        offsets = {place: (found.get(place), start) for place, (start, _) in ends.items()}
        return {place: start if offset is None else offset for place, (offset, start) in offsets.items()}

    def read(self, span: Mapping[Place, tuple[int, int]], stall_s: float = STALL_S) -> Iterator[Message]:
        """Every committed record from the first offset up to, not with, the second one of each place, once.

        Raises KafkaProblem if nothing comes for `stall_s` before the ends: a leader may move meanwhile.
        """
        ends = {place: end for place, (start, end) in span.items() if start < end}
        following = {place: span[place][0] for place in ends}
        consumer = Consumer(consumer_config(self._settings))
        try:
            consumer.assign([TopicPartition(*place, following[place]) for place in ends])
            last_news, why = time.monotonic(), ""
            while ends:
                for message in consumer.consume(BATCH_RECORDS, 0.5):
                    place = message.topic() or "", message.partition() or 0
                    offset, error = message.offset() or 0, message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                        why = self._passing(error)
                        continue
                    last_news, end = time.monotonic(), ends.get(place)
                    if end is None:
                        continue
                    if error is None:
                        if offset < following[place]:
                            continue  # librdkafka began anew: after the log of a new leader seemed shorter
                        following[place] = offset + 1
                        if offset < end:
                            yield message
                    # the last record or, where control records end the log, the end mark
                    if offset >= end - (error is None):
                        del ends[place]
                if time.monotonic() - last_news > stall_s:
                    raise self._stalled(ends, stall_s, why)
        finally:
            consumer.close()

    def follow(
        self, topic: str, starts: Mapping[Place, int] | None = None, *, only: Iterable[Place] | None = None
    ) -> Generator[Message | None, None, None]:
        """Every committed record of a topic, for ever; None whenever nothing came for 100 ms.

        `starts`: from these offsets on, a place that is not among them from its beginning. `only`: nothing of
        the topic but these places.
        """
        if only is None:
            only = ((topic, partition) for partition in range(self.partitions([topic])[topic]))
        places = list(only)
        begin = dict.fromkeys(places, OFFSET_BEGINNING) | dict(starts or {})
        following: dict[Place, int] = {}
        consumer = Consumer(consumer_config(self._settings))
        try:
            consumer.assign([TopicPartition(*place, begin[place]) for place in places])
            while True:
                message = consumer.poll(0.1)
                error = message.error() if message is not None else None
                if message is None:
                    yield None
                elif error is None:
                    place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
                    if offset >= following.get(place, 0):  # else librdkafka began anew, as in `read`
                        following[place] = offset + 1
                        yield message
                elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                    self._passing(error)
        finally:
            consumer.close()

    def _ask(self, question: Callable[[], T]) -> T:
        """The answer; asked again, at another broker, while that may give one. Raises KafkaProblem."""
        began, looked = time.monotonic(), False
        while True:
            try:
                return question()
            except (KafkaUnavailable, KafkaException) as problem:
                error: Exception = problem
            took_s = time.monotonic() - began
            if _is_fact(error) or took_s > self._within_s:
                raise unreachable(self._settings, error) from None
            if took_s > ANSWER_WITHIN_S / 2 and not looked:
                answers, looked = answering(self._settings), True
                if not any(answers.values()):
                    raise KafkaProblem(advice(answers, said(error))) from None
            time.sleep(ASK_AGAIN_S)

    def _passing(self, error: KafkaError) -> str:
        """What a partition's error says, if it may pass: a leader moves; else raises KafkaProblem."""
        if error.fatal() or error.code() in FACTS:
            raise unreachable(self._settings, error)
        return said(error)

    def _stalled(self, ends: Mapping[Place, int], stall_s: float, why: str) -> KafkaProblem:
        topic, partition = min(ends)
        where = f"{topic}-{partition} cannot be read up to {ends[topic, partition]}"
        why = why or f"nothing came for {stall_s:.0f} s"
        return KafkaProblem(f"{where}: {advice(answering(self._settings), why)}")

    def _new_cluster(self, within_s: float) -> Cluster:
        return Cluster(self._settings.client_config() | QUICK, within_s)


QUICK: Final = {
    # a broker that hangs is given up after this, not after a minute
    "socket.timeout.ms": 5000,
    "socket.connection.setup.timeout.ms": 3000,
    # where leaders are is asked again soon: one that hangs raises no error that would make librdkafka ask
    "topic.metadata.refresh.interval.ms": 3000,
    "reconnect.backoff.max.ms": 1000,
}
FACTS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_REQUEST,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's public names for its local errors
        KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
        KafkaError._INVALID_ARG,  # noqa: SLF001
    }
)
"""Answers that stay the same however often one asks."""


def _is_fact(error: Exception) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in FACTS


def consumer_config(settings: Settings) -> dict[str, Any]:
    """A reader that assigns itself; librdkafka wants a group name, nothing is ever committed to it."""
    return settings.client_config() | QUICK | {
        "group.id": f"{settings.app_id}-reader",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "log_level": 0,
    }


def unreachable(settings: Settings, error: object) -> KafkaProblem:
    """The one line for what Kafka does not do: why, who of the brokers answers, what to do.

    It asks each of them, which takes up to 1.5 s.
    """
    return KafkaProblem(advice(answering(settings), said(error)))


def said(error: object) -> str:
    """What librdkafka says in one line, without its names of threads."""
    if isinstance(error, KafkaException):
        error = error.args[0]
    text = error.str() if isinstance(error, KafkaError) else str(error)
    return " ".join(text.split())
