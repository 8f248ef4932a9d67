"""Reads topics as a read_committed reader sees them, each partition up to a given offset."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamsocial_billing.exactly_once.cluster import Cluster
from streamsocial_billing.exactly_once.errors import KafkaUnavailable
from streamsocial_billing.settings import Settings

T = TypeVar("T")
Place = tuple[str, int]
"""Topic, partition."""

ANSWER_WITHIN_S: Final = 6.0
"""How long the broker may take to answer a question."""
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

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = Cluster(settings.client_config(), ANSWER_WITHIN_S)

    def partitions(self, names: Iterable[str]) -> dict[str, int]:
        """The partition count of each of these full topic names; raises KafkaProblem if one is missing."""
        wanted = list(names)
        found = self._ask(lambda: self._cluster.topics(wanted))
        for name in wanted:
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

    def read(self, span: Mapping[Place, tuple[int, int]]) -> Iterator[Message]:
        """Every committed record from the first offset up to, not with, the second one of each place.

        Raises KafkaProblem if a partition gives nothing for STALL_S before its end.
        """
        ends = {place: end for place, (start, end) in span.items() if start < end}
        consumer = Consumer(consumer_config(self._settings))
        try:
            consumer.assign([TopicPartition(*place, span[place][0]) for place in ends])
            last_news = time.monotonic()
            while ends:
                messages = consumer.consume(BATCH_RECORDS, 0.5)
                for message in messages:
                    place = message.topic() or "", message.partition() or 0
                    offset, error = message.offset() or 0, message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                        raise unreachable(self._settings, error)
                    end = ends.get(place)
                    if end is None:
                        continue
                    if error is None and offset < end:
                        yield message
                    # the last record or, where control records end the log, the end mark
                    if offset >= end - (error is None):
                        del ends[place]
                last_news = time.monotonic() if messages else last_news
                if time.monotonic() - last_news > STALL_S:
                    topic, partition = min(ends)
                    raise KafkaProblem(
                        f"{topic}-{partition} cannot be read up to {ends[topic, partition]}: nothing "
                        f"came for {STALL_S:.0f} s, look at the broker's log"
                    )
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
        consumer = Consumer(consumer_config(self._settings))
        try:
            consumer.assign([TopicPartition(*place, begin[place]) for place in places])
            while True:
                message = consumer.poll(0.1)
                error = message.error() if message is not None else None
                if error is None:
                    yield message
                elif error.code() != KafkaError._PARTITION_EOF and error.fatal():  # noqa: SLF001
                    raise unreachable(self._settings, error)
        finally:
            consumer.close()

    def _ask(self, question: Callable[[], T]) -> T:
        """The answer; asked again while a leader is being chosen, as it is just after a topic was made."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            try:
                return question()
            except (KafkaUnavailable, KafkaException) as error:
                if isinstance(error, KafkaException) or time.monotonic() > deadline - ASK_AGAIN_S:
                    raise unreachable(self._settings, error) from None
            time.sleep(ASK_AGAIN_S)


def consumer_config(settings: Settings) -> dict[str, Any]:
    """A reader that assigns itself; librdkafka wants a group name, nothing is ever committed to it."""
    return settings.client_config() | {
        "group.id": f"{settings.app_id}-reader",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "log_level": 0,
    }


def unreachable(settings: Settings, error: object) -> KafkaProblem:
    """The one line for a broker that does not answer as it should."""
    return KafkaProblem(
        f"Kafka at {settings.bootstrap} does not answer ({said(error)}): start it (make kafka) or set "
        "BILLING_BROKER"
    )


def said(error: object) -> str:
    """What librdkafka says in one line, without its names of threads."""
    if isinstance(error, KafkaException):
        error = error.args[0]
    text = error.str() if isinstance(error, KafkaError) else str(error)
    return " ".join(text.split())
