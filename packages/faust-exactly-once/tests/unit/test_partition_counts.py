"""Partition counts as a cluster gives them: a broker that is behind is asked again, a growth is a fact."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from faust_exactly_once import Layer, Options, SetupRefused, partition_counts
from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.brokers import BrokerState
from faust_exactly_once.environment import Environment
from faust_exactly_once.layer import NO_CONTACT
from faust_exactly_once.membership import Membership
from faust_exactly_once.partition_counts import PartitionCounts

Answer: TypeAlias = dict[str, int] | KafkaError
HAD, GROWN = {"orders": 4}, {"orders": 5}


class App:
    """What a layer needs of an app: to be there."""


class Counts(PartitionCounts):
    """The answers are the test's, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        nothing: Any = None
        super().__init__(App(), nothing, nothing, lambda: None)
        self.layer = Layer(self._app, Options(client_config={}))
        self.layer.partitions = 4
        self.answers = list(answers)
        self.asked = 0

    async def ask(self) -> dict[str, int]:
        """The next one."""
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, KafkaError):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second to be sure, not five."""
    monkeypatch.setattr(partition_counts, "COUNT_CONFIRM_S", 0.1)
    monkeypatch.setattr(partition_counts, "RETRY_S", 0.005)


def watch(*answers: Answer) -> int:
    """How often the count was asked for until what was fetched may be handled; or SetupRefused."""
    counts = Counts(*answers)
    asyncio.run(counts.watch(now=True))
    return counts.asked


def test_the_count_that_the_tasks_have_is_asked_for_once() -> None:
    """The hot path: one question after a fetch."""
    assert 1 == watch(HAD)


@pytest.mark.parametrize("behind", [{"orders": 3}, GROWN, UnknownTopicOrPartitionError("not heard of")])
def test_an_answer_of_a_broker_that_is_behind_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch, behind: Answer
) -> None:
    """Another count, or none, is asked again; what was fetched waits, then goes on."""
    monkeypatch.setattr(partition_counts, "COUNT_CONFIRM_S", 60.0)  # however busy the machine is
    assert 4 == watch(behind, behind, behind, HAD)


def test_a_count_that_stays_changed_stops_the_worker_before_anything_is_handled() -> None:
    """Each answer says so for as long as it takes to be sure."""
    with pytest.raises(SetupRefused, match="orders has 5 partitions, its tables were made for 4"):
        watch(GROWN)


class Member:
    """The group's member: the test says whether it knows the coordinator, which brokers answer."""

    def __init__(self) -> None:
        self.contact = True
        self.answering = {1, 2, 3}

    def has_contact(self) -> bool:
        """Whether the coordinator is known."""
        return self.contact

    def silent_s(self) -> float:
        """No fetch is owed."""
        return 0.0

    def brokers(self) -> dict[int, BrokerState]:
        """Three of them."""
        return {n: BrokerState(f"k{n}:9092", n in self.answering, frozenset([n])) for n in (1, 2, 3)}


class ClockedLayer:
    """A layer with one running task whose clocks the test moves."""

    def __init__(self) -> None:
        self.app = App()
        self.now_s = 1_700_000_000.0
        clock: Any = SimpleNamespace(monotonic=lambda: self.now_s, time=lambda: self.now_s)
        self.layer = Layer(self.app, Options(client_config={}, environment=Environment(clock=clock)))
        self.member = Member()
        member: Any = self.member
        self.layer.state.member = member
        self.layer.assigned_tasks[0] = AssignedTask(
            0, frozenset(["orders"]), Membership("g", 1, "m"), "running"
        )
        self.look(1)

    def look(self, seconds: int) -> list[str]:
        """What each task's state is after so many looks, a second apart; what Kafka is: away or not."""
        for _ in range(seconds):
            self.now_s += 1
            self.layer.health.look()
        away = self.layer.connectivity.away_since_ms is not None
        return [*(task["state"] for task in self.layer.status()), "away" if away else "there"]


@pytest.fixture
def bench() -> ClockedLayer:
    """All brokers answer."""
    return ClockedLayer()


def test_a_coordinator_that_moves_to_another_broker_is_not_kafka_gone(bench: ClockedLayer) -> None:
    """Two of three answer: its tasks run, for as long as it takes to find it."""
    bench.member.answering, bench.member.contact = {2, 3}, False
    assert ["running", "there"] == bench.look(10)
    bench.member.contact = True
    assert ["running", "there"] == bench.look(60)


def test_a_coordinator_that_stays_away_is_said_though_brokers_answer(bench: ClockedLayer) -> None:
    """Nothing is handled without it."""
    bench.member.answering, bench.member.contact = {2, 3}, False
    assert [NO_CONTACT["state"], "away"] == bench.look(30)


def test_no_broker_that_answers_is_kafka_gone(bench: ClockedLayer) -> None:
    """Also while the last coordinator is still believed to be one; back as soon as one answers."""
    bench.member.answering = set()
    assert "away" == bench.look(5)[-1]
    bench.member.answering = {3}
    assert ["running", "there"] == bench.look(1)
