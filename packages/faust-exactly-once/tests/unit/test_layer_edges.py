"""What the layer does at its edges, as far as no broker is needed to see it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.types import TP

import faust_exactly_once as exactly_once
from faust_exactly_once import KafkaUnavailable, Layer, Options, SetupRefused, stable_ends
from faust_exactly_once.facts import LogEnds
from faust_exactly_once.stable_ends import wait_stable
from faust_exactly_once.units import Unit

STABLE = LogEnds(0, 9, 9)
PENDING = LogEnds(0, 5, 9)
LOG = ("log", 3)


class Answers:
    """A cluster that gives these answers about `LOG`, the last one again and again."""

    def __init__(self, *answers: LogEnds) -> None:
        self.answers = list(answers)

    def log_ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], LogEnds]:
        """The next answer; what is asked beside is always stable."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return {tp: answer if tp == LOG else STABLE for tp in partitions}


def waited(answers: Sequence[LogEnds]) -> tuple[list[str], dict[tuple[str, int], LogEnds]]:
    """What was said on the way, what came out."""
    said: list[str] = []
    cluster: Any = Answers(*answers)
    return said, wait_stable(cluster, [LOG], said.append, also=[("src", 3)])


def test_a_foreign_transaction_is_named_once_not_at_each_look() -> None:
    """A hundred looks say one line; it goes on as soon as the transaction is over."""
    said, ends = waited([PENDING] * 20 + [STABLE])
    assert ["waiting for an open transaction on log-3 at 5"] == said
    assert {LOG: STABLE, ("src", 3): STABLE} == ends


def test_a_further_foreign_transaction_is_named_too() -> None:
    """What is said is always what is waited for."""
    said, _ = waited([PENDING, PENDING, LogEnds(0, 7, 12), STABLE])
    assert [f"waiting for an open transaction on log-3 at {at}" for at in (5, 7)] == said


def test_a_wait_for_a_foreign_transaction_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the opening begins anew, from the fence."""
    monkeypatch.setattr(stable_ends, "HANGING_S", 0.1)
    with pytest.raises(KafkaUnavailable, match="an open transaction of another producer blocks log-3 at 5"):
        waited([PENDING])


@pytest.fixture
def app(tmp_path: Path) -> Any:
    """An app whose source topics had four partitions when it started."""
    app = faust.App("edges", datadir=str(tmp_path), **exactly_once.settings(["kafka://127.0.0.1:1"]))
    exactly_once.install(app, Options(client_config={})).partitions = 4
    return app


def test_source_topics_with_their_partitions_are_fine(app: Any) -> None:
    """Nothing is raised; a topic that is being deleted has no count."""
    Layer.of(app).check_partitions({"a": 4, "b": 4})
    Layer.of(app).check_partitions({})


@pytest.mark.parametrize("count", [1, 3, 5, 400])
def test_another_partition_count_is_refused_by_name(app: Any, count: int) -> None:
    """One sentence: which topic, what it has, what it had, what to do."""
    with pytest.raises(SetupRefused) as refusal:
        Layer.of(app).check_partitions({"a": 4, "b": count})
    assert str(refusal.value).startswith(f"topic b has {count} partitions, its tables were made for 4: ")
    assert "create it anew" in str(refusal.value)


async def test_a_group_that_knows_of_more_partitions_is_refused_before_a_task_opens(app: Any) -> None:
    """An assignment that holds a partition beyond the count of the start opens nothing."""
    assigned = {TP(topic, partition) for topic in ("a", "b") for partition in (0, 4)}
    with pytest.raises(SetupRefused, match="topic a has 5 partitions, its tables were made for 4"):
        await app.tables.on_rebalance(assigned, set(), assigned, 7)
    assert {} == Layer.of(app).assigned_tasks


def test_names_of_releases_before_0_1_go_on_working() -> None:
    """An application that was written for them runs as it is."""
    facts: list[Any] = []
    options = Options(client_config={}, tell_committed=lambda event, more: facts.append(more), gap_alarm_s=7)
    assert 7 == options.head_of_line_alarm_s
    assert options.on_committed is not None
    assert options == replace(options)
    assert exactly_once.Nudger is exactly_once.TriggerWriter
    task: Any = None
    unit = Unit(task, SimpleNamespace(value=None), 1, None, first_delivery=True)
    unit.tell("done", 5)
    assert (unit.surely_first, unit.reports) == (True, (("done", 5),))
    layer = Layer(faust.App("earlier", **exactly_once.settings(["kafka://127.0.0.1:1"])), options)
    assert layer.slots is layer.assigned_tasks
