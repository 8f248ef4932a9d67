"""Whether Kafka answers a worker, and since when it does not; the clock is the test's."""

from __future__ import annotations

import pytest

from streamsocial_billing.exactly_once.connectivity import AWAY_AFTER_S, Connectivity

START_S = 1_700_000_000.0


class Bench:
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
def bench() -> Bench:
    bench = Bench()
    assert bench.look(0) is None
    return bench


def test_kafka_that_answers_is_never_away(bench: Bench) -> None:
    """However long it is watched, however rarely."""
    assert {None} == {bench.look(seconds) for seconds in (1, 1, 600, 1)}
    assert bench.connectivity.away_since_ms is None
    assert int(bench.now_s * 1000) == bench.connectivity.last_contact_ms


def test_kafka_that_goes_away_is_said_once_with_the_last_contact_as_its_beginning(bench: Bench) -> None:
    """A minute of looks says it once; the beginning stays where it was."""
    bench.answers = False
    assert ["away"] == [change for _ in range(60) if (change := bench.look()) is not None]
    assert int(START_S * 1000) == bench.connectivity.away_since_ms


def test_kafka_that_is_back_is_said_once_with_how_long_it_was_away(bench: Bench) -> None:
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


def test_a_coordinator_that_moves_is_no_absence(bench: Bench) -> None:
    """Less than AWAY_AFTER_S without an answer is neither said nor shown."""
    for _ in range(5):
        bench.answers = False
        assert bench.look(AWAY_AFTER_S / 4) is None
        assert bench.connectivity.away_since_ms is None
        bench.answers = True
        assert bench.look(AWAY_AFTER_S / 4) is None


def test_a_worker_that_never_had_an_answer_counts_from_its_first_look() -> None:
    """Kafka may be gone between the check before the start and the first heartbeat."""
    bench = Bench()
    bench.answers = False
    assert [None, None, "away"] == [bench.look(0), bench.look(), bench.look()]
    assert int(START_S * 1000) == bench.connectivity.away_since_ms
