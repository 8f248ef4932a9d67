"""Kafka's answers to questions, as a test writes them: librdkafka's admin client and a group's reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, Final

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from faust_exactly_once import answers
from faust_exactly_once.clients import Clients
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.environment import Environment

HANGS: Final = object()
"""An answer that never comes."""
Answer = Any


class ByName(dict[str, Any]):
    """Another answer for each topic."""


def future_of(answer: Answer) -> Future[Any]:
    """What librdkafka would give for it: a code is an error."""
    future: Future[Any] = Future()
    if isinstance(answer, KafkaError):
        future.set_exception(KafkaException(answer))
    elif answer is not HANGS:
        future.set_result(answer)
    return future


def topic(topic_id: str = "id", partitions: int = 4) -> Answer:
    """A topic as it is described."""
    return SimpleNamespace(topic_id=topic_id, partitions=list(range(partitions)))


def end(offset: int, epoch: int | None = 0) -> Answer:
    """An answer to ListOffsets."""
    return SimpleNamespace(offset=offset, leader_epoch=epoch)


class ScriptedAnswers:
    """The answers to each question, one a call, the last one again and again.

    Attributes:
        clients: how many clients were made.
        calls: the questions in the order in which they were put.
    """

    def __init__(self, patch: pytest.MonkeyPatch, **script: Sequence[Answer]) -> None:
        self.script = {name: list(given) for name, given in script.items()}
        self.clients = 0
        self.calls: list[str] = []
        patch.setattr(answers, "PAUSES_S", (0.001,))

    def cluster(self, timeout_s: float = 30.0) -> Cluster:
        """One that is asked; what becomes a fact does so long before, also on a busy machine."""
        return Cluster({}, timeout_s, Environment(Clients(admin=self._admin, consumer=self._reader)))

    def _admin(self, _: Any) -> Any:
        return ScriptedAdmin(self)

    def _reader(self, _: Any) -> Any:
        return ScriptedReader(self)

    def next(self, name: str) -> Answer:
        """The next answer."""
        self.calls.append(name)
        left = self.script[name]
        return left.pop(0) if len(left) > 1 else left[0]

    def each(self, name: str, keys: Iterable[Any], key_name: Callable[[Any], Any]) -> dict[Any, Future[Any]]:
        """A future for each key; an answer is for all of them, or `ByName`."""
        answer = self.next(name)
        if not isinstance(answer, ByName):
            return {key: future_of(answer) for key in keys}
        return {key: future_of(answer[key_name(key)]) for key in keys}


class AnyTopic(dict[Any, Any]):
    """Topics by name, each there; partitions by number, each with a leader."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._value = value

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: Any) -> Any:
        return self._value

    def get(self, _: Any, __: Any = None) -> Any:
        """As `[]`."""
        return self._value


ANY_TOPIC = AnyTopic(SimpleNamespace(partitions=AnyTopic(SimpleNamespace(leader=1))))


class ScriptedAdmin:
    """Stands where `confluent_kafka.admin.AdminClient` does."""

    def __init__(self, answers: ScriptedAnswers) -> None:
        self._answers = answers
        answers.clients += 1

    def describe_cluster(self, *, request_timeout: float) -> Future[Any]:
        """Id, nodes."""
        return future_of(self._answers.next("describe_cluster"))

    def describe_topics(self, names: Any, *, request_timeout: float) -> dict[str, Future[Any]]:
        """By name."""
        return self._answers.each("describe_topics", names.topic_names, str)

    def describe_configs(self, resources: Sequence[Any], *, request_timeout: float) -> dict[Any, Future[Any]]:
        """By name of a topic or broker."""
        return self._answers.each("describe_configs", resources, lambda resource: resource.name)

    def create_topics(
        self, topics: Sequence[Any], *, operation_timeout: float, request_timeout: float
    ) -> dict[str, Future[Any]]:
        """By name."""
        return self._answers.each("create_topics", [one.topic for one in topics], str)

    def list_topics(self, timeout: float) -> Any:
        """Every topic that is ever asked for, each with a leader."""
        return SimpleNamespace(topics=ANY_TOPIC)

    def list_offsets(
        self, wanted: Mapping[TopicPartition, Any], *, isolation_level: Any, request_timeout: float
    ) -> dict[TopicPartition, Future[Any]]:
        """By topic; asked three times for one answer: start, stable end, high watermark."""
        return self._answers.each("list_offsets", wanted, lambda tp: tp.topic)


class ScriptedReader:
    """Stands where `confluent_kafka.Consumer` does."""

    def __init__(self, answers: ScriptedAnswers) -> None:
        self._answers = answers
        answers.clients += 1

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[Any]:
        """An error, or for each partition an offset or an error."""
        answer = self._answers.next("committed")
        if isinstance(answer, KafkaError):
            raise KafkaException(answer)
        return [
            SimpleNamespace(
                topic=tp.topic, partition=tp.partition, metadata="",
                offset=-1001 if isinstance(one, KafkaError) else one,
                error=one if isinstance(one, KafkaError) else None,
            )
            for tp, one in zip(partitions, answer, strict=False)
        ]  # fmt: skip
