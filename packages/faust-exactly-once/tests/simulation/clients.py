"""librdkafka's admin client, its reader of changelogs, on the simulated broker."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import ConfigResource, OffsetSpec

from faust_exactly_once.facts import TP

from .clock import clock
from .fibers import Outcome
from .network import LOST

if TYPE_CHECKING:
    from .worker import Worker

AGAIN_S = 0.02
EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's public names for its local errors
RESET = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001
TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001
TOMBSTONES_KEPT_S = 3.0


class SimulatedAdmin:
    """Stands where `confluent_kafka.admin.AdminClient` does; asks again where a connection breaks."""

    def __init__(self, _: Mapping[str, Any]) -> None:
        self._process: Worker = clock().process
        self._broker = self._process.network.broker

    def describe_cluster(self, *, request_timeout: float) -> Outcome:
        """The cluster's id."""
        return self._ask("DescribeCluster", lambda: SimpleNamespace(cluster_id="cluster"))

    def describe_topics(self, names: TopicCollection, *, request_timeout: float) -> dict[str, Outcome]:
        """Id, partitions of each topic."""
        return {name: self._ask("Metadata", partial(self._topic, name)) for name in names.topic_names}

    def _topic(self, name: str) -> Any:
        return SimpleNamespace(topic_id=f"id of {name}", partitions=range(self._broker.topics[name]))

    def describe_configs(
        self, resources: Sequence[ConfigResource], *, request_timeout: float
    ) -> dict[ConfigResource, Outcome]:
        """The one setting that matters."""
        config = {"delete.retention.ms": SimpleNamespace(value=int(TOMBSTONES_KEPT_S * 1000))}
        return {resource: self._ask("DescribeConfigs", lambda: config) for resource in resources}

    def list_topics(self, timeout: float) -> Any:
        """The leader of each partition; at once."""
        leads = SimpleNamespace(leader=0)
        return SimpleNamespace(topics={
            name: SimpleNamespace(partitions=dict.fromkeys(range(count), leads))
            for name, count in self._broker.topics.items()
        })  # fmt: skip

    def list_offsets(
        self, wanted: Mapping[TopicPartition, OffsetSpec], *, isolation_level: IsolationLevel,
        request_timeout: float,
    ) -> dict[TopicPartition, Outcome]:  # fmt: skip
        """One answer for all partitions, as of one moment."""
        committed = isolation_level == IsolationLevel.READ_COMMITTED
        earliest = OffsetSpec.earliest()
        found: dict[TopicPartition, Outcome] = {tp: Outcome() for tp in wanted}

        def look() -> list[int]:
            logs = [self._broker.logs[tp.topic, tp.partition] for tp in wanted]
            first = next(iter(wanted.values())) is earliest
            return [log.start if first else log.stable if committed else log.high for log in logs]

        def tell(offsets: list[int]) -> None:
            for outcome, offset in zip(found.values(), offsets, strict=True):
                outcome.set_result(SimpleNamespace(offset=offset, leader_epoch=0))

        self._send("ListOffsets", look, tell)
        return found

    def _ask(self, api: str, look: Callable[[], Any]) -> Outcome:
        outcome = Outcome()
        self._send(api, look, outcome.set_result)
        return outcome

    def _send(self, api: str, look: Callable[[], Any], tell: Callable[[Any], None]) -> None:
        def answered(answer: Any) -> None:
            if answer == LOST:
                clock().after(AGAIN_S, lambda: self._send(api, look, tell), self._process)
            else:
                tell(answer)

        self._process.network.call(self._process, api, lambda reply: reply(look()), answered)


class SimulatedReader:
    """Stands where `confluent_kafka.Consumer` does while changelogs are read, committed offsets asked for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._process: Worker = clock().process
        self.asks_for_stable = self._committed = config["isolation.level"] == "read_committed"
        self._at: dict[TP, int] = {}
        self._fetched: list[Message] = []

    def assign(self, places: Sequence[TopicPartition]) -> None:
        """Where to begin."""
        self._at = {(place.topic, place.partition): place.offset for place in places}

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[Any]:
        """The group's offsets; unstable ones are waited for if stable ones are wanted.

        Raises:
            KafkaException: not known in time.
        """
        until_s = clock().now + timeout
        tps: list[TP] = [(tp.topic, tp.partition) for tp in partitions]
        broker = self._process.network.broker
        look = broker.offsets if self.asks_for_stable else broker.possibly_old_offsets
        while clock().now < until_s:
            answered = Outcome()
            self._process.network.call(
                self._process, "OffsetFetch", lambda r: r(look(tps)), answered.set_result
            )
            try:
                answer = answered.result(until_s - clock().now)
            except TimeoutError:
                break
            if answer is not None and answer != LOST:
                return [_position(tp, *found) for tp, found in answer.items()]
            clock().fiber.sleep(AGAIN_S)
        raise KafkaException(KafkaError(TIMED_OUT, "simulated"))

    def poll(self, timeout: float) -> Message | None:
        """The next record, or the word that an end is reached."""
        if not self._fetched:
            self._fetched = self.consume(1000, timeout)
        return self._fetched.pop(0) if self._fetched else None

    def consume(self, most: int, timeout: float) -> list[Message]:
        """Some records of each partition, with a word when its end is reached."""
        answered = Outcome()
        few = clock().rng.choice([1, 3, most])
        network = self._process.network
        network.call(self._process, "Fetch", lambda reply: reply(self._read(few)), answered.set_result)
        try:
            answer = answered.result(timeout)
        except TimeoutError:
            return []
        if answer == LOST:
            return []
        messages, self._at = answer
        return list(messages)

    def _read(self, most: int) -> tuple[list[Message], dict[TP, int]]:
        found: list[Message] = []
        positions: dict[TP, int] = {}
        for tp, at in self._at.items():
            log = self._process.network.broker.logs[tp]
            if at < log.start:
                return [_end(tp, at, RESET)], self._at
            records, positions[tp] = log.read(at, most, committed=self._committed)
            found += [
                Message(topic=tp[0], partition=tp[1], offset=offset, key=content.key, value=content.value)
                for offset, content, _ in records
            ]
            if positions[tp] >= (log.stable if self._committed else log.high):
                found.append(_end(tp, positions[tp], EOF))
        return found, positions

    def close(self) -> None:
        """Nothing to give back."""


def _position(tp: TP, offset: int, note: str) -> Any:
    return SimpleNamespace(topic=tp[0], partition=tp[1], offset=offset, metadata=note, error=None)


def _end(tp: TP, offset: int, code: int) -> Message:
    return Message(topic=tp[0], partition=tp[1], offset=offset, error=KafkaError(code, "simulated"))
