"""The lines by which an operator follows a worker: partitions, ready, Kafka gone and back."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from faust_exactly_once.broker_absences import BrokerChange
from faust_exactly_once.connectivity import Connectivity
from faust_exactly_once.operator_log import (
    STILL_EVERY_S,
    AssignmentLines,
    KafkaLines,
    log_broker_changes,
    ranges,
)


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    """From INFO on."""
    caplog.set_level(logging.INFO, "faust_exactly_once")


def assigned_tasks(*states: str) -> list[Any]:
    """One assigned for each state, numbered from 0."""
    return [SimpleNamespace(partition=number, state=state) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("partitions", "text"),
    [([], "none"), ([3], "3"), ([0, 1, 2, 3], "0-3"), ([7, 0, 1, 5], "0-1,5,7"), ([0, 1], "0-1")],
)
def test_partitions_are_written_as_runs(partitions: list[int], text: str) -> None:
    """As short as they can be, so that fifty of them are read at a glance."""
    assert text == ranges(partitions)


def test_a_rebalance_says_what_was_gained_what_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Also as fields."""
    said = AssignmentLines()
    said.changed([0, 1, 2, 3])
    said.changed([2, 3, 4])
    assert [
        "partitions gained: 0-3; lost: none; now here: 0-3",
        "partitions gained: 4; lost: 0-1; now here: 2-4",
    ] == [one.getMessage() for one in caplog.records]
    names = ("gained", "lost", "partitions")
    assert ["4", "0-1", "2-4"] == [getattr(caplog.records[1], name) for name in names]


def test_ready_is_said_after_the_start_then_after_each_rebalance(caplog: pytest.LogCaptureFixture) -> None:
    """With the partitions; one without any stands by."""
    said = AssignmentLines()
    said.settled(assigned_tasks("running", "running"), of=4)
    said.settled([], of=4)
    first, second = [one.getMessage() for one in caplog.records]
    assert first.startswith("ready: partitions 0-1 (2 of 4), ")
    assert first.endswith(" s after the start")
    assert "ready: no partition is left for this worker, it stands by" == second


def test_a_worker_with_a_blocked_task_is_not_called_ready(caplog: pytest.LogCaptureFixture) -> None:
    """A warning that names the partition."""
    AssignmentLines().settled(assigned_tasks("running", "blocked"), of=2)
    [one] = caplog.records
    assert ("WARNING", True) == (
        one.levelname, one.getMessage().startswith("not ready: partitions 1 are blocked; 0 run, ")
    )  # fmt: skip


def test_kafka_away_is_said_once_then_now_and_then_then_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """With how long, and how many messages were held back since it began."""
    now, contact, held = [1000.0], [True], [7]
    connectivity = Connectivity(lambda: contact[0], lambda: now[0])
    lines = KafkaLines(connectivity, lambda: held[0], lambda: now[0])

    def look(seconds: int) -> None:
        for _ in range(seconds):
            now[0] += 1
            held[0] += 10 if not contact[0] else 0
            lines.say(connectivity.look())

    look(5)
    assert [] == caplog.records
    contact[0] = False
    look(45)
    contact[0] = True
    look(5)
    found = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert ["ERROR", "WARNING", "WARNING", "WARNING"] == [level for level, _ in found]
    assert found[0][1].startswith("Kafka is not reachable: ")
    assert found[1][1].startswith(f"Kafka is still not reachable, {2 + STILL_EVERY_S:.0f} s, ")
    assert found[1][1].endswith(f"{10 * STILL_EVERY_S:.0f} messages not shown")
    assert found[3][1].startswith("Kafka is reachable again after 46 s, ")


def test_a_broker_away_is_one_line_with_its_address_and_what_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its partitions on other workers are not named here; one when it is back, with how long it was away."""
    log_broker_changes([BrokerChange("away", 2, "k2:9092", 3.2, frozenset([0, 1, 5]))], here={0, 1, 2})
    log_broker_changes([BrokerChange("back", 2, "k2:9092", 15.4, frozenset())], here={0, 1, 2})
    log_broker_changes([BrokerChange("away", 0, "", 2.0, frozenset())], here={0})
    assert [
        "Kafka broker 2 (k2:9092) is not reachable, its last answer is 3 s old; partitions here that wait "
        "for it, or for another leader: 0-1",
        "Kafka broker 2 (k2:9092) is reachable again after 15 s",
        "Kafka broker 0 (address not known) is not reachable, it has never answered; partitions here that "
        "wait for it, or for another leader: none",
    ] == [one.getMessage() for one in caplog.records]
    assert {"WARNING"} == {one.levelname for one in caplog.records}
