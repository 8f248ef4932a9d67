"""What an opening believes: only what Kafka goes on saying stops a task, or rebuilds a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from hypothesis import given
from hypothesis import strategies as st
from layer_kit.scripted_worker import CHANGELOG, EVENTS, ScriptedCluster, World

from faust_exactly_once import recovery
from faust_exactly_once.clients import Clients
from faust_exactly_once.database import FORMAT, Identity
from faust_exactly_once.environment import Environment
from faust_exactly_once.errors import KafkaUnavailable
from faust_exactly_once.facts import TP, LogEnds
from faust_exactly_once.options import Options
from faust_exactly_once.recovery import Plan, Recovery, contradicts

EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's public names for its local errors
LOG: TP = (CHANGELOG, 0)
Ends = dict[TP, LogEnds]


class Lies:
    """Lets the first answers about log ends and committed offsets be those of a leader that knows less."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ends: Callable[[Ends], Ends] | None = None
        self.nothing_committed = False
        self.left = 0
        self.asked = 0
        truth, offsets = ScriptedCluster.log_ends, ScriptedCluster.committed_with_metadata
        lies = self

        def log_ends(self: ScriptedCluster, partitions: Iterable[TP]) -> Ends:
            lies.asked += 1
            found = truth(self, partitions)
            if lies.ends is None or lies.left <= 0:
                return found
            lies.left -= 1
            return lies.ends(found)

        def committed(self: ScriptedCluster, group: str, partitions: Sequence[TP]) -> Any:
            if not lies.nothing_committed or lies.left <= 0:
                return offsets(self, group, partitions)
            lies.left -= 1
            return dict.fromkeys(partitions)

        patch.setattr(ScriptedCluster, "log_ends", log_ends)
        patch.setattr(ScriptedCluster, "committed_with_metadata", committed)


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch) -> Lies:
    """None at first."""
    return Lies(monkeypatch)


@pytest.fixture
def quickly(world: World) -> None:
    """What stays so is believed at once."""
    world.confirm_s = 0.2


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lies: Lies) -> Iterator[World]:
    """Three events are handled, committed each by itself, in the table.

    A lie of a moment is over long before it would be believed, also on a busy machine.
    """
    world = World(tmp_path, monkeypatch, confirm_s=60.0)
    for _ in range(3):
        world.kafka.append(EVENTS, b"key", marker=False)
        world.go_on()
    assert {b"key": b"3"} == world.now.table()
    yield world
    world.end()


def open_again(world: World, caplog: pytest.LogCaptureFixture, *, disk: bool = True) -> str:
    """Another process opens the task; what it said."""
    caplog.clear()
    world.start(disk=disk)
    world.now.loop.settle(1.0)
    return caplog.text


def no_records(ends: Ends) -> Ends:
    """The sources end before what was committed."""
    return ends | {EVENTS: LogEnds(0, 1, 1)}


def deleted(ends: Ends) -> Ends:
    """The sources begin behind what was committed."""
    return ends | {EVENTS: LogEnds(7, 9, 9)}


@pytest.mark.parametrize("lie", [no_records, deleted])
def test_a_committed_offset_outside_its_log_is_asked_about_again(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture, lie: Callable[[Ends], Ends]
) -> None:
    """A new leader's answer of one moment stops no task for an operator."""
    lies.ends, lies.left = lie, 3
    said = open_again(world, caplog)
    assert "running" == world.now.assigned.state, world.now.assigned.why
    assert 1 == said.count("asking Kafka again before the task stops: the committed offset 3 of events-0")
    assert "is stopped" not in said
    assert {b"key": b"3"} == world.now.table()


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("lie", [no_records, deleted])
def test_a_committed_offset_that_stays_outside_its_log_stops_the_task(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture, lie: Callable[[Ends], Ends]
) -> None:
    """Then it is a fact: nothing is handled until somebody chooses."""
    lies.ends, lies.left = lie, 1_000_000
    assert "task 0 is stopped: the committed offset 3 of events-0" in open_again(world, caplog)
    assert "blocked" == world.now.assigned.state
    assert lies.asked > 1  # how often in so short a time says the machine


def test_offsets_that_are_gone_for_a_moment_stop_no_task(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture
) -> None:
    """A coordinator that has just taken over may know less than the one before it."""
    lies.nothing_committed, lies.left = True, 2
    said = open_again(world, caplog)
    assert "running" == world.now.assigned.state, world.now.assigned.why
    assert "is stopped" not in said


def short_changelog(ends: Ends) -> Ends:
    """The changelogs end before what the databases have."""
    return {tp: LogEnds(0, 1, 1) if tp != EVENTS else one for tp, one in ends.items()}


def test_a_changelog_that_ends_before_its_database_is_asked_about_again(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture
) -> None:
    """A table is not thrown away because a leader that lags answered; these offsets have no notes."""
    world.kafka.metadata.clear()
    lies.ends, lies.left = short_changelog, 3
    said = open_again(world, caplog)
    assert 1 == said.count("asking Kafka again before a table is rebuilt")
    assert "is rebuilt from empty" not in said
    assert {b"key": b"3"} == world.now.table()


@pytest.mark.usefixtures("quickly")
def test_a_changelog_that_goes_on_ending_before_its_database_rebuilds_it(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the database is not proven a prefix (point 4)."""
    world.kafka.metadata.clear()
    lies.ends, lies.left = short_changelog, 1_000_000
    assert "the changelog ends at 1" in open_again(world, caplog)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_leader_without_the_last_commit_is_not_believed(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture, on_disk: bool
) -> None:
    """A broker that is cut off from its peers goes on answering; the task's offsets say what must be there.

    Without a database, and so without any doubt from it, half of the table would be taken for all of it.
    """
    lies.ends, lies.left = short_changelog, 2
    said = open_again(world, caplog, disk=on_disk)
    assert "ends at 1, but " in said
    world.now.loop.settle(20.0)
    assert "running" == world.now.assigned.state, world.now.assigned.why
    assert {b"key": b"3"} == world.now.table()
    assert "is rebuilt from empty" not in said


def test_a_leader_that_stays_without_the_last_commit_is_named(
    world: World, lies: Lies, caplog: pytest.LogCaptureFixture
) -> None:
    """The task goes on asking, says what is missing; nothing is handled on half a table."""
    lies.ends, lies.left = short_changelog, 1_000_000
    said = open_again(world, caplog)
    world.now.loop.settle(60.0)
    assert "is stopped" not in said + caplog.text
    assert "its leader lags or its records are lost" in world.now.assigned.why
    assert "blocked" == world.now.assigned.state


@pytest.fixture
def older(world: World) -> tuple[dict[TP, int | None], dict[TP, str]]:
    """The offsets with their notes before one more event was handled; all of it is in the table."""
    before = dict(world.kafka.committed), dict(world.kafka.metadata)
    world.kafka.append(EVENTS, b"key", marker=False)
    world.go_on()
    assert {b"key": b"4"} == world.now.table()
    return before


def test_offsets_older_than_the_changelogs_are_not_believed(
    world: World, older: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A coordinator that was frozen tells those of then: the event would be answered a second time."""
    truth = dict(world.kafka.committed), dict(world.kafka.metadata)
    left = 3
    offsets = ScriptedCluster.committed_with_metadata

    def committed(self: ScriptedCluster, group: str, partitions: Sequence[TP]) -> Any:
        nonlocal left
        left -= 1
        world.kafka.committed, world.kafka.metadata = older if left >= 0 else truth
        try:
            return offsets(self, group, partitions)
        finally:
            world.kafka.committed, world.kafka.metadata = truth

    monkeypatch.setattr(ScriptedCluster, "committed_with_metadata", committed)
    said = open_again(world, caplog)
    world.go_on()
    assert 1 == said.count("asking Kafka again: the changelogs are ahead of the committed offsets")
    assert {0: 1, 1: 1, 2: 1, 3: 1} == dict(world.handled)
    assert {b"key": b"4"} == world.now.table()


@pytest.mark.usefixtures("quickly")
def test_offsets_that_stay_older_are_gone_on_from(
    world: World, older: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever made them so, a task does not stand still for ever because of it."""
    world.kafka.committed, world.kafka.metadata = older
    open_again(world, caplog)
    assert "running" == world.now.assigned.state, world.now.assigned.why


def test_offsets_of_a_release_that_only_hands_on_what_it_finds_are_believed(
    world: World, older: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its commit has a later offset than the one that the entries were written with."""
    world.kafka.metadata = older[1]
    said = open_again(world, caplog)
    assert "asking Kafka again" not in said
    assert "running" == world.now.assigned.state, world.now.assigned.why


OURS, OTHERS = Identity("cluster", "topic", 0), Identity("other", "topic", 0)
OLD = Identity("cluster", "topic", 0, FORMAT + 1)


@given(
    identity=st.sampled_from([None, OURS, OTHERS, OLD]),
    position=st.integers(0, 9), ends=st.tuples(*[st.integers(0, 9)] * 3).map(sorted),
)  # fmt: skip
def test_only_a_database_of_this_changelog_casts_doubt_on_its_ends(
    identity: Identity | None, position: int, ends: list[int]
) -> None:
    """A new, a foreign, an old one says nothing; ours does where it lies outside."""
    store: Any = SimpleNamespace(identity=identity, reached=SimpleNamespace(position=position))
    found = contradicts(Plan("t", LOG, store, OURS, LogEnds(*ends), 1))
    assert (identity == OURS and not ends[0] <= position <= ends[1]) == found


class Reader:
    """Stands where the changelogs' reader does: gives these messages, then nothing."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    def assign(self, places: Any) -> None:
        """Where to begin."""

    def poll(self, timeout_s: float) -> Message | None:
        """The next one."""
        return self._messages.pop(0) if self._messages else None

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        """All of them."""
        found, self._messages = self._messages, []
        return found

    def close(self) -> None:
        """Nothing to give back."""


def end_at(offset: int) -> Message:
    """The word that the end is reached."""
    return Message(topic=CHANGELOG, partition=0, offset=offset, error=KafkaError(EOF))


def failing(code: int) -> Message:
    """An error of the changelog."""
    return Message(topic=CHANGELOG, partition=0, offset=-1001, error=KafkaError(code, "why"))


def recovery_of(*messages: Message) -> Recovery:
    """One whose changelog is read as these messages say."""
    reader: Any = Reader(*messages)
    options = Options(client_config={}, environment=Environment(Clients(consumer=lambda _: reader)))
    return Recovery(options, lambda _: None)


def holds(patch: pytest.MonkeyPatch, *messages: Message) -> bool:
    """Whether a changelog that ends at 5 holds a record, as it is read."""
    patch.setattr(recovery, "STALL_S", 0.05)
    return recovery_of(*messages).holds_records({LOG: LogEnds(0, 5, 5)})


def test_an_end_before_the_last_stable_offset_does_not_make_a_changelog_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader that lags has not said that there are no records: its task would begin from the beginning."""
    record = Message(topic=CHANGELOG, partition=0, offset=3, key=b"k", value=b"v")
    assert holds(monkeypatch, end_at(2), record)
    assert not holds(monkeypatch, end_at(2), failing(KafkaError.NOT_LEADER_FOR_PARTITION), end_at(5))
    with pytest.raises(KafkaUnavailable, match="was not read to its end"):
        holds(monkeypatch, end_at(2))


@pytest.mark.parametrize(
    "code",
    [KafkaError._AUTO_OFFSET_RESET, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART],  # noqa: SLF001
)
def test_a_changelog_that_cannot_be_read_is_unavailable(code: int) -> None:
    """Its task opens again, asking anew; the error is named, without a stack trace."""
    store: Any = SimpleNamespace(identity=OURS, reached=SimpleNamespace(position=0, at_ms=10**15))
    item = Plan("t", LOG, store, OURS, LogEnds(0, 5, 5), 10**9)
    with pytest.raises(KafkaUnavailable, match=f"changelog {CHANGELOG}: why"):
        recovery_of(failing(code)).run([item], lambda: False)
