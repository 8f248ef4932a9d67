"""Reads both topics from the stored positions on, and counts them: the consumer to copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from lab.analytics.books import Place, RevenueBooks, Stretch
from lab.analytics.movements import METRICS, RESULTS, movement

COMMITTED: Final = "read_committed"
UNCOMMITTED: Final = "read_uncommitted"
BATCH_RECORDS: Final = 500
WAIT_S: Final = 0.2
ASK_S: Final = 10.0


class Follower:
    """One reader of `charge-results` and `payment-metrics`.

    It belongs to no group: where it reads on stands in its own database, nowhere else. So there is no second
    place that could say something else after a crash.
    """

    def __init__(
        self, kafka: Mapping[str, Any], books: RevenueBooks, *, prefix: str = "", isolation: str = COMMITTED
    ) -> None:
        """Begin where the books end.

        Args:
            kafka: librdkafka settings to reach the brokers.
            books: of this reader alone.
            prefix: what the topics' names begin with.
            isolation: COMMITTED; UNCOMMITTED counts what was aborted, too.
        """
        self._books = books
        self._prefix = prefix
        self._positions: dict[Place, int] = books.positions()
        self._consumer = Consumer({
            **kafka,
            "group.id": "analytics",  # librdkafka wants one; nothing is committed to it
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "auto.offset.reset": "error",  # records that are gone must not be skipped in silence
            "enable.partition.eof": True,
        })  # fmt: skip
        self._places = self._all_places()
        begin = dict.fromkeys(self._places, OFFSET_BEGINNING) | self._positions
        self._consumer.assign([
            TopicPartition(prefix + topic, partition, begin[topic, partition])
            for topic, partition in self._places
        ])  # fmt: skip

    def _all_places(self) -> list[Place]:
        found = []
        for topic in (RESULTS, METRICS):
            about = self._consumer.list_topics(self._prefix + topic, ASK_S).topics[self._prefix + topic]
            if about.error is not None:
                raise KafkaException(about.error)
            found += [(topic, partition) for partition in about.partitions]
        return found

    def run(self, until: Callable[[], bool], *, to_end: bool = False) -> None:
        """Count until `until` says so or, with `to_end`, until each partition was read to its end."""
        ended: set[Place] = set()
        while not until() and not (to_end and ended.issuperset(self._places)):
            ended |= self.step()

    def step(self) -> set[Place]:
        """Count what is there, in one transaction; the places of which the end was reached."""
        messages = self._consumer.consume(BATCH_RECORDS, WAIT_S)
        records = [one for one in messages if one.error() is None]
        stretches = self._stretches(records)
        if stretches:
            self._books.add(stretches)
            self._positions |= {place: one.next for place, one in stretches.items()}
        return {self._place(one) for one in messages if _is_end(one)}

    def _stretches(self, records: Iterable[Message]) -> dict[Place, Stretch]:
        found: dict[Place, Stretch] = {}
        for record in records:
            place = self._place(record)
            stretch = found.setdefault(place, Stretch(self._positions.get(place), 0, []))
            stretch.next = (record.offset() or 0) + 1
            moved = movement(place[0], record.value())
            if moved is not None:
                stretch.movements.append(moved)
        return found

    def _place(self, message: Message) -> Place:
        return (message.topic() or "").removeprefix(self._prefix), message.partition() or 0

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


def _is_end(message: Message) -> bool:
    """True for a partition's end; raises KafkaException for what does not go away by waiting."""
    error = message.error()
    if error is None:
        return False
    if error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        raise KafkaException(error)
    return bool(error.code() == KafkaError._PARTITION_EOF)  # noqa: SLF001
