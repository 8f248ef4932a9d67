"""What an answer of Kafka means."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from faust_exactly_once import KafkaUnavailable
from faust_exactly_once.answers import (
    PAUSES_S,
    TRANSIENT,
    UNKNOWN_TOPIC,
    ask_again,
    is_offset,
    is_transient,
    unknown_topic,
)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds slept so far."""
        return self.now

    def time(self) -> float:
        """Nobody asks."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """Asking again takes no time."""
    return Clock()


def test_no_error_both_passes_and_means_an_unknown_topic() -> None:
    """An unknown topic may be a fact: it has a bound of its own."""
    assert not TRANSIENT & UNKNOWN_TOPIC


@pytest.mark.parametrize("code", sorted(TRANSIENT))
def test_errors_of_a_cluster_that_changes_pass(code: int) -> None:
    """Leaders, coordinators, controllers that move; brokers that are away."""
    assert is_transient(KafkaError(code))
    assert not unknown_topic(KafkaError(code))


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION,
        KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError.ILLEGAL_GENERATION,
        KafkaError.PRODUCER_FENCED, KafkaError.TOPIC_ALREADY_EXISTS, *UNKNOWN_TOPIC,
    ],
)  # fmt: skip
def test_what_is_or_may_be_a_fact_does_not_pass(code: int) -> None:
    """Else it would be asked again for ever."""
    assert not is_transient(KafkaError(code))


@pytest.mark.parametrize(
    ("offset", "known"), [(-1001, False), (-1, False), (None, False), (0, True), (7, True)]
)
def test_a_negative_number_is_no_offset(offset: int | None, known: bool) -> None:
    """librdkafka's -1001 says that it has none; 0 is the first offset of a log."""
    assert known == is_offset(offset)


def test_a_question_is_put_again_until_it_has_an_answer(clock: Clock) -> None:
    """With growing pauses; the line says why, once, not at every try."""
    said: list[str] = []
    tries = 0

    def question() -> int:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise KafkaUnavailable("no leader")
        return 7

    assert 7 == ask_again(question, 30, said.append, clock)
    assert sum(PAUSES_S[:4]) == pytest.approx(clock.now)
    assert ["no answer from Kafka yet (no leader): asking again for up to 30 s"] == said


def test_asking_again_is_bounded(clock: Clock) -> None:
    """Then the last try's error says why; a line each 5 s on the way."""
    said: list[str] = []

    def question() -> int:
        raise KafkaUnavailable("no leader")

    with pytest.raises(KafkaUnavailable, match="no leader"):
        ask_again(question, 20, said.append, clock)
    assert 18 < clock.now <= 20
    assert 4 == len(said)


def test_a_fact_is_not_asked_for_twice(clock: Clock) -> None:
    """Any other error goes through at the first try."""
    with pytest.raises(ZeroDivisionError):
        ask_again(lambda: 1 // 0, 20, clock=clock)
    assert 0 == clock.now
