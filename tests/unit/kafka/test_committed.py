"""What a reader outside the layer takes for a fact, when a cluster's brokers come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from faust_exactly_once.answers import TRANSIENT
from faust_exactly_once.errors import KafkaUnavailable
from faust_exactly_once.facts import LogEnds, TopicFacts
from faust_exactly_once.librdkafka_errors import REFUSED as REFUSED_IN_THE_LAYER
from streamsocial_billing.kafka import committed
from streamsocial_billing.kafka.answering_brokers import advice
from streamsocial_billing.kafka.committed import FACTS, CommittedLog, KafkaProblem
from streamsocial_billing.kafka.transactions import REFUSED
from streamsocial_billing.settings import Settings

KE = KafkaError
EOF = KE._PARTITION_EOF  # noqa: SLF001 - librdkafka's public names for its local errors
SETTINGS = Settings(broker="kafka://127.0.0.1:1;kafka://127.0.0.1:2;kafka://127.0.0.1:3")
ADDRESSES = SETTINGS.bootstrap.split(",")
PLACE = "payments", 0


class Message:
    """What a consumer gives: a record, or an error at an offset."""

    def __init__(self, offset: int, error: int | None = None) -> None:
        self._offset, self._error = offset, error

    def topic(self) -> str:
        """Of the only place."""
        return PLACE[0]

    def partition(self) -> int:
        """Of the only place."""
        return PLACE[1]

    def offset(self) -> int:
        """Its place."""
        return self._offset

    def error(self) -> KafkaError | None:
        """None for a record."""
        return None if self._error is None else KafkaError(self._error)


class Scripted:
    """Stands where `Cluster` and `Consumer` do; `answers` come one by one, an exception is raised."""

    def __init__(self, answers: Iterable[Any]) -> None:
        self._answers = list(answers)

    def topics(self, _: Any, *, expected: Any = ()) -> Any:
        """An answer."""
        return self._next()

    def log_ends(self, _: Any) -> Any:
        """An answer."""
        return self._next()

    def assign(self, _: Any) -> None:
        """Nothing."""

    def consume(self, _: int, __: float) -> Any:
        """Messages."""
        return self._next()

    def poll(self, _: float) -> Any:
        """A message."""
        return self._next()

    def close(self) -> None:
        """Nothing."""

    def _next(self) -> Any:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommittedLog]:
    """A log over scripted answers; `there` are the brokers that answer."""

    def made(*answers: Any, there: Iterable[int] = (0, 1, 2)) -> CommittedLog:
        scripted = Scripted(answers)
        monkeypatch.setattr(committed, "Cluster", lambda *_: scripted)
        monkeypatch.setattr(committed, "Consumer", lambda _: scripted)
        found = {address: number in there for number, address in enumerate(ADDRESSES)}
        monkeypatch.setattr(committed, "answering", lambda _: found)
        return CommittedLog(SETTINGS)

    return made


@pytest.mark.parametrize(
    "error",
    [
        KafkaUnavailable("the broker did not answer"),
        KafkaException(KafkaError(KE.UNKNOWN_TOPIC_OR_PART)),
        KafkaException(KafkaError(KE.NOT_LEADER_FOR_PARTITION)),
        KafkaException(KafkaError(KE.NETWORK_EXCEPTION)),
        KafkaException(KafkaError(KE.OFFSET_NOT_AVAILABLE)),
    ],
    ids=str,
)
def test_an_answer_that_may_be_another_one_later_is_asked_for_again(
    error: Exception, log: Callable[..., CommittedLog]
) -> None:
    """Another broker knows the topic, leads the partition, or lives."""
    ends = log(error, error, {PLACE: LogEnds(3, 7, 9)}).ends([PLACE])

    assert {PLACE: (3, 7)} == ends


def test_a_fact_ends_a_question_at_once(log: Callable[..., CommittedLog]) -> None:
    """What is not allowed is not allowed later."""
    began = time.monotonic()

    with pytest.raises(KafkaProblem, match="authorization failed"):
        log(KafkaException(KafkaError(KE.TOPIC_AUTHORIZATION_FAILED))).ends([PLACE])

    assert 5 > time.monotonic() - began


def test_a_topic_that_one_broker_does_not_know_yet_exists(log: Callable[..., CommittedLog]) -> None:
    """It was just created through another one."""
    facts = {"payments": TopicFacts("id", 4, {})}

    assert {"payments": 4} == log({}, facts).partitions(["payments"])


def test_a_topic_that_nobody_knows_for_a_while_does_not_exist(
    log: Callable[..., CommittedLog],
) -> None:
    """It is said what makes it."""
    with pytest.raises(KafkaProblem, match="payments does not exist: start a worker first"):
        log({}).partitions(["payments"])


@pytest.mark.parametrize(
    ("there", "bound", "said"),
    [
        ((), "ANSWER_WITHIN_S", r"Kafka at 127.0.0.1:1,127.0.0.1:2,127.0.0.1:3 does not answer .*of 3"),
        ((0, 2), "PATIENCE_S", "2 of 3 brokers answer, 127.0.0.1:2 does not: start it"),
        ((1,), "PATIENCE_S", "1 of 3 brokers answers, 127.0.0.1:1 and 127.0.0.1:3 do not: start them"),
    ],
)
def test_a_question_in_vain_ends_with_who_answers(
    there: tuple[int, ...], bound: str, said: str, log: Callable[..., CommittedLog],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The whole of Kafka is away: said early. While a broker lives: only when no leader can come any more."""
    seen = log(KafkaUnavailable("no answer"), there=there)
    monkeypatch.setattr(committed, "ANSWER_WITHIN_S", 0.2)
    monkeypatch.setattr(seen, "_within_s", 0.2 if bound == "PATIENCE_S" else 99.0)

    with pytest.raises(KafkaProblem, match=said):
        seen.ends([PLACE])


def test_reading_goes_on_while_a_leader_moves(log: Callable[..., CommittedLog]) -> None:
    """A partition's error is no end; a record that comes twice is given once; an early end is none."""
    batches = [
        [Message(0), Message(0, KE.UNKNOWN_TOPIC_OR_PART)],
        [Message(1), Message(2, EOF)],
        [Message(0, KE.NOT_LEADER_FOR_PARTITION)],
        [Message(0), Message(1), Message(2)],
        [Message(4, EOF)],
    ]

    assert [0, 1, 2] == [message.offset() for message in log(*batches).read({PLACE: (0, 4)})]


def test_reading_that_stands_still_says_why_and_who_answers(log: Callable[..., CommittedLog]) -> None:
    """The last error is named."""
    stuck = log([Message(0, KE.UNKNOWN_TOPIC_OR_PART)], there=(0, 1))

    with pytest.raises(KafkaProblem) as caught:
        list(stuck.read({PLACE: (0, 4)}, 0.2))

    assert "payments-0 cannot be read up to 4: Kafka cannot do it now (" in str(caught.value)
    assert "2 of 3 brokers answer, 127.0.0.1:3 does not" in str(caught.value)


def test_following_ends_where_it_is_not_allowed(log: Callable[..., CommittedLog]) -> None:
    """For ever in vain is no answer to who waits."""
    messages = [Message(0), Message(1, KE.TOPIC_AUTHORIZATION_FAILED)]

    with pytest.raises(KafkaProblem, match="authorization failed"):
        list(log(*messages).follow("payments", only=[PLACE]))


def test_following_goes_on_while_a_leader_moves(log: Callable[..., CommittedLog]) -> None:
    """A partition's error is no end; what comes twice is given once."""
    moved = Message(1, KE.UNKNOWN_TOPIC_OR_PART)
    messages = [Message(0), moved, Message(0), Message(1), None, Message(2)]
    seen = log(*messages).follow("payments", only=[PLACE])

    assert [0, 1, None, 2] == [one and one.offset() for one in islice(seen, 4)]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([False], "Kafka at a does not answer (why): start it (make kafka) or set BILLING_BROKER"),
        ([True], "Kafka at a cannot do it now (why), though the broker answers: try again"),
        ([False] * 3, "Kafka at a,b,c does not answer (why; none of 3 brokers does): start them (BROKERS=3 "),
        ([True] * 3, "Kafka at a,b,c cannot do it now (why), though all 3 brokers answer"),
        ([True, False, True], "Kafka cannot do it now (why): 2 of 3 brokers answer, b does not: start it"),
        ([False, True, False], "Kafka cannot do it now (why): 1 of 3 brokers answers, a and c do not: start"),
    ],
)  # fmt: skip
def test_advice_fits_who_answers(there: list[bool], expected: str) -> None:
    """To start Kafka is advised only where none of it lives."""
    assert advice(dict(zip("abc", there, strict=False)), "why").startswith(expected)


def test_what_is_a_fact_does_not_pass_by_itself() -> None:
    """The reader, the writer and the layer each have a list of errors: none says what another one denies."""
    assert not FACTS & TRANSIENT
    assert not REFUSED & TRANSIENT
    assert REFUSED_IN_THE_LAYER <= REFUSED
