"""Whether Kafka answers a worker, and since when it does not; the clock is the test's."""

from __future__ import annotations

import pytest

from faust_exactly_once.broker_absences import Brokers
from faust_exactly_once.brokers import BrokerState
from faust_exactly_once.connectivity import AWAY_AFTER_S, Connectivity

START_S = 1_700_000_000.0


class CutKafka:
    """A connection that the test cuts, a clock that it moves."""

    def __init__(self) -> None:
        self.answers = True
        self.now_s = START_S
        self.connectivity = Connectivity(lambda: self.answers, lambda: self.now_s)

    def look(self, after_s: float = 1.0) -> str | None:
        """What changes at a look so many seconds later."""
        self.now_s += after_s
        return self.connectivity.look()


@pytest.fixture
def bench() -> CutKafka:
    bench = CutKafka()
    assert bench.look(0) is None
    return bench


def test_kafka_that_answers_is_never_away(bench: CutKafka) -> None:
    """However long it is watched, however rarely."""
    assert {None} == {bench.look(seconds) for seconds in (1, 1, 600, 1)}
    assert bench.connectivity.away_since_ms is None
    assert int(bench.now_s * 1000) == bench.connectivity.last_contact_ms


def test_kafka_that_goes_away_is_said_once_with_the_last_contact_as_its_beginning(bench: CutKafka) -> None:
    """A minute of looks says it once; the beginning stays where it was."""
    bench.answers = False
    assert ["away"] == [change for _ in range(60) if (change := bench.look()) is not None]
    assert int(START_S * 1000) == bench.connectivity.away_since_ms


def test_kafka_that_is_back_is_said_once_with_how_long_it_was_away(bench: CutKafka) -> None:
    """Then the next absence begins anew."""
    bench.answers = False
    for _ in range(10):
        bench.look()
    bench.answers = True
    assert ["back"] == [change for _ in range(10) if (change := bench.look()) is not None]
    assert (None, 11.0) == (bench.connectivity.away_since_ms, bench.connectivity.was_away_s)
    bench.answers = False
    assert ["away"] == [change for _ in range(10) if (change := bench.look()) is not None]
    assert int((START_S + 20) * 1000) == bench.connectivity.away_since_ms


def test_a_coordinator_that_moves_is_no_absence(bench: CutKafka) -> None:
    """Less than AWAY_AFTER_S without an answer is neither said nor shown."""
    for _ in range(5):
        bench.answers = False
        assert bench.look(AWAY_AFTER_S / 4) is None
        assert bench.connectivity.away_since_ms is None
        bench.answers = True
        assert bench.look(AWAY_AFTER_S / 4) is None


def test_a_worker_that_never_had_an_answer_counts_from_its_first_look() -> None:
    """Kafka may be gone between the check before the start and the first heartbeat."""
    bench = CutKafka()
    bench.answers = False
    assert [None, None, "away"] == [bench.look(0), bench.look(), bench.look()]
    assert int(START_S * 1000) == bench.connectivity.away_since_ms


class Three:
    """Three brokers, of which the test takes some away; a clock that it moves."""

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.now_s = START_S
        self.brokers = Brokers(lambda: self.now_s)

    def look(self, after_s: float = 1.0) -> list[tuple[str, int, float]]:
        """What changes at a look so many seconds later: what, which broker, for how long it was away."""
        self.now_s += after_s
        seen = {n: BrokerState(f"k{n}:9092", n not in self.away, frozenset([n, n + 3])) for n in (1, 2, 3)}
        return [(one.change, one.number, one.was_away_s) for one in self.brokers.look(seen)]


def test_each_broker_that_goes_is_said_once_and_once_when_it_is_back() -> None:
    """With how long it was away; the others are not meant."""
    three = Three()
    assert [] == three.look()
    three.away = {2}
    assert [("away", 2, 2.0)] == [change for _ in range(60) for change in three.look()]
    assert three.brokers.any_answers()
    three.away = {1, 2, 3}
    assert {("away", 1), ("away", 3)} == {one[:2] for _ in range(60) for one in three.look()}
    assert not three.brokers.any_answers()
    three.away = {1}
    assert {("back", 2), ("back", 3)} == {one[:2] for _ in range(5) for one in three.look()}


def test_a_broker_that_is_restarted_within_a_moment_is_not_said() -> None:
    """Less than AWAY_AFTER_S."""
    three = Three()
    for _ in range(5):
        three.away = set()
        assert [] == three.look(AWAY_AFTER_S / 4)
        three.away = {3}
        assert [] == three.look(AWAY_AFTER_S / 4)


def test_what_is_said_of_each_broker_names_the_partitions_here_that_it_leads() -> None:
    """Since when, in ms; None while it is up."""
    three = Three()
    three.look()
    three.away = {2}
    for _ in range(4):
        three.look()
    since = int((START_S + 1) * 1000)
    one, two, _ = three.brokers.status(here=[1, 2, 5])
    assert {"id": 1, "address": "k1:9092", "up": True, "since": None, "partitions": [1]} == one
    assert {"id": 2, "address": "k2:9092", "up": False, "since": since, "partitions": [2, 5]} == two


def test_before_the_first_look_nobody_is_said_to_be_away() -> None:
    """A worker that has no assignment yet knows of no broker."""
    brokers = Brokers()
    assert (True, False, []) == (brokers.any_answers(), brokers.several(), brokers.status([]))
