"""Each question that `Cluster` answers, on scripted answers of a changing cluster."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import NewTopic
from hypothesis import given
from hypothesis import strategies as st
from layer_kit.scripted_answers import HANGS, Answer, ByName, ScriptedAnswers, end, topic

from faust_exactly_once import KafkaUnavailable, SetupRefused
from faust_exactly_once import cluster as cluster_module
from faust_exactly_once.answers import TRANSIENT, UNKNOWN_TOPIC
from faust_exactly_once.cluster_answers import described_topics
from faust_exactly_once.environment import Deadline
from faust_exactly_once.facts import LogEnds

LOG = ("log", 0)
SHORT_S = 0.2  # where no answer ever becomes a fact
UNKNOWN = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
MOVED = KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)
GOOD_ENDS = [end(2), end(5), end(9)]
SETTINGS = {"retention.ms": SimpleNamespace(value="7")}
BOUNDS = {f"group.{side}.session.timeout.ms": SimpleNamespace(value=str(ms))
          for side, ms in (("min", 6_000), ("max", 1_800_000))}  # fmt: skip


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A short name."""
    return monkeypatch


# -- log ends


NO_ENDS: list[tuple[str, list[Answer]]] = [
    ("no offset known", [end(-1001), end(-1001), end(-1001)]),
    ("no start known", [end(-1001), end(5), end(9)]),
    ("no stable end known", [end(2), end(-1001), end(9)]),
    ("no high watermark known", [end(2), end(5), end(-1)]),
    ("a stable end above the high watermark", [end(2), end(9), end(5)]),
    ("a start above the stable end", [end(7), end(5), end(9)]),
    ("ends of two leaders", [end(2), end(5, 3), end(9, 4)]),
    ("a new leader that does not know its high watermark",
     [end(2), end(5), KafkaError(KafkaError.OFFSET_NOT_AVAILABLE)]),
    ("a broker that has not heard of the topic", [UNKNOWN]),
    ("a leader that has moved", [end(2), MOVED]),
    ("no leader", [KafkaError(KafkaError.LEADER_NOT_AVAILABLE)]),
    ("librdkafka finds no leaders", [KafkaError(KafkaError._NOENT)]),  # noqa: SLF001
]  # fmt: skip


@pytest.mark.parametrize("ends", [ends for _, ends in NO_ENDS], ids=[why for why, _ in NO_ENDS])
def test_ends_that_are_no_fact_are_asked_for_again(patch: pytest.MonkeyPatch, ends: list[Answer]) -> None:
    """By a fresh client; what it says then is the answer."""
    first = ends if len(ends) == 3 else [*ends, *[ends[-1]] * (3 - len(ends))]
    kafka = ScriptedAnswers(patch, list_offsets=[*first, *GOOD_ENDS, *GOOD_ENDS])
    assert {LOG: LogEnds(2, 5, 9)} == kafka.cluster().log_ends([LOG])
    assert 2 == kafka.clients


@pytest.mark.parametrize("ends", [ends for _, ends in NO_ENDS], ids=[why for why, _ in NO_ENDS])
def test_ends_that_never_become_a_fact_are_unavailable(
    patch: pytest.MonkeyPatch, ends: list[Answer]
) -> None:
    """The task tries again later; nobody is told that records were deleted."""
    kafka = ScriptedAnswers(patch, list_offsets=[ends[0]])
    kafka.next = lambda name: _round_robin(kafka, name, ends)  # type: ignore[method-assign]
    with pytest.raises(KafkaUnavailable):
        kafka.cluster(SHORT_S).log_ends([LOG])


def _round_robin(kafka: ScriptedAnswers, name: str, ends: list[Answer]) -> Answer:
    kafka.calls.append(name)
    return ends[(len(kafka.calls) - 1) % len(ends)]


def test_one_partition_without_ends_is_enough_to_ask_again(patch: pytest.MonkeyPatch) -> None:
    """The others' leaders answered: that says nothing about this one."""
    bad = ByName(log=end(-1001), other=end(3))
    good = ByName(log=end(4), other=end(4))
    kafka = ScriptedAnswers(patch, list_offsets=[bad, bad, bad, good])
    found = kafka.cluster().log_ends([LOG, ("other", 0)])
    assert {LOG: LogEnds(4, 4, 4), ("other", 0): LogEnds(4, 4, 4)} == found


@given(
    first=st.tuples(*[st.integers(-1001, 9)] * 3), epochs=st.tuples(*[st.integers(0, 1)] * 2),
)  # fmt: skip
def test_whatever_leaders_say_ends_are_in_order(
    first: tuple[int, int, int], epochs: tuple[int, int]
) -> None:
    """0 <= start <= stable <= high, of one leader epoch; else it was asked again."""
    with pytest.MonkeyPatch.context() as patch:
        said = [end(first[0], None), end(first[1], epochs[0]), end(first[2], epochs[1])]
        found = ScriptedAnswers(patch, list_offsets=[*said, *GOOD_ENDS]).cluster().log_ends([LOG])[LOG]
        fits = 0 <= first[0] <= first[1] <= first[2] and epochs[0] == epochs[1]
        assert LogEnds(*(first if fits else (2, 5, 9))) == found


def test_a_broker_that_hangs_costs_a_part_of_the_time(patch: pytest.MonkeyPatch) -> None:
    """The next try asks with a fresh client, within the same time-out."""
    kafka = ScriptedAnswers(patch, list_offsets=[HANGS, HANGS, HANGS, *GOOD_ENDS])
    assert {LOG: LogEnds(2, 5, 9)} == kafka.cluster(timeout_s=3.0).log_ends([LOG])
    assert 2 == kafka.clients


# -- committed offsets


NO_OFFSETS: list[tuple[str, Answer]] = [
    *((KafkaError(code).name(), KafkaError(code)) for code in (
        KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError._TIMED_OUT,  # noqa: SLF001
    )),
    *((f"{KafkaError(code).name()} of a partition", [7, KafkaError(code)]) for code in (
        KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    )),
    ("an answer without one of the partitions", [7]),
    ("a number that is no offset", [7, -1000]),
]  # fmt: skip
SOURCES = [("a", 0), ("b", 0)]


@pytest.mark.parametrize("answer", [one for _, one in NO_OFFSETS], ids=[why for why, _ in NO_OFFSETS])
def test_none_is_a_fact_only_if_the_coordinator_said_so(patch: pytest.MonkeyPatch, answer: Answer) -> None:
    """An error, of the group or of one partition, is asked for again; it never counts as "no offset"."""
    kafka = ScriptedAnswers(patch, committed=[answer, [7, -1001]])
    assert {("a", 0): 7, ("b", 0): None} == kafka.cluster().committed("group", SOURCES)
    assert 2 == kafka.clients
    never = ScriptedAnswers(patch, committed=[answer])
    with pytest.raises(KafkaUnavailable, match="committed offsets of group"):
        never.cluster(SHORT_S).committed("group", SOURCES)


# -- topics


@pytest.mark.parametrize("code", sorted(UNKNOWN_TOPIC))
def test_a_topic_that_was_just_described_is_known_to_the_broker_that_is_asked_for_its_settings(
    patch: pytest.MonkeyPatch, code: int
) -> None:
    """Another broker, which has not heard of it yet: this ended workers at their first start."""
    kafka = ScriptedAnswers(patch, describe_topics=[topic()], describe_configs=[KafkaError(code), SETTINGS])
    found = kafka.cluster().topics(["t"])["t"]
    assert (4, {"retention.ms": "7"}) == (found.partitions, found.config)


@pytest.mark.parametrize("code", sorted(UNKNOWN_TOPIC))
def test_a_topic_that_nobody_has_seen_does_not_exist(patch: pytest.MonkeyPatch, code: int) -> None:
    """That is answered at once: a first start asks about each of its topics before it makes them."""
    kafka = ScriptedAnswers(patch, describe_topics=[KafkaError(code)], describe_configs=[SETTINGS])
    assert {} == kafka.cluster(timeout_s=60).topics(["t"])
    assert 1 == len(kafka.calls)


def test_a_topic_that_was_seen_is_asked_for_again_at_a_broker_that_does_not_know_it(
    patch: pytest.MonkeyPatch,
) -> None:
    """Seen once, by any broker, it exists, until it is unknown for the whole time-out: then it is deleted."""
    kafka = ScriptedAnswers(
        patch, describe_topics=[topic(), UNKNOWN, UNKNOWN, topic(), UNKNOWN], describe_configs=[SETTINGS]
    )
    cluster = kafka.cluster(1.0)
    assert {"t"} == cluster.topics(["t"]).keys()
    assert {"t"} == cluster.topics(["t"]).keys()
    assert {} == cluster.topics(["t"])
    asked = len(kafka.calls)
    assert {} == cluster.topics(["t"])
    assert asked + 1 == len(kafka.calls)


def test_a_topic_that_must_exist_is_asked_for_again(patch: pytest.MonkeyPatch) -> None:
    """Sources that somebody made a moment ago at another broker."""
    kafka = ScriptedAnswers(patch, describe_topics=[UNKNOWN, topic()], describe_configs=[SETTINGS])
    assert {"t"} == kafka.cluster().topics(["t"], expected=["t"]).keys()
    never = ScriptedAnswers(patch, describe_topics=[UNKNOWN])
    assert {} == never.cluster(SHORT_S).topics(["t"], expected=["t"])
    with pytest.raises(KafkaUnavailable, match=r"does not know the topics \['t'\] yet"):
        never.cluster(SHORT_S).facts_of(["t"])


@pytest.mark.parametrize("bad", [topic("AAAAAAAAAAAAAAAAAAAAAA"), topic(""), topic("id", 0)])
def test_a_topic_without_id_or_partitions_is_no_fact(patch: pytest.MonkeyPatch, bad: Answer) -> None:
    """A database would be thrown away as one of another topic."""
    kafka = ScriptedAnswers(patch, describe_topics=[bad, topic("real")], describe_configs=[SETTINGS])
    assert "real" == kafka.cluster().topics(["t"])["t"].topic_id


# -- creating


NEW = [NewTopic("t", 4, 3)]


def created(patch: pytest.MonkeyPatch, *said: Answer, known: Answer = None) -> ScriptedAnswers:
    """Kafka, which says so when "t" is created."""
    patch.setattr(cluster_module, "START_S", SHORT_S)
    return ScriptedAnswers(
        patch, create_topics=said, describe_topics=[known or topic()], describe_configs=[SETTINGS]
    )


@pytest.mark.parametrize("code", sorted(TRANSIENT))
def test_a_creation_that_could_not_be_is_tried_again(patch: pytest.MonkeyPatch, code: int) -> None:
    """The first try may have made it after all: then it exists."""
    kafka = created(patch, KafkaError(code), KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
    kafka.cluster().create(NEW)
    assert 2 == kafka.calls.count("create_topics")


def test_two_workers_that_create_the_same_topic_both_go_on(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes second waits until the topic is known where it asks."""
    kafka = created(patch, KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
    kafka.script["describe_topics"] = [UNKNOWN, UNKNOWN, topic()]
    kafka.cluster().create(NEW)
    assert 3 == kafka.calls.count("describe_topics")


def test_too_few_brokers_may_be_one_that_restarts(patch: pytest.MonkeyPatch) -> None:
    """It is asked again; the line says so."""
    said: list[str] = []
    few = KafkaError(KafkaError.INVALID_REPLICATION_FACTOR)
    created(patch, few, few, few, None).cluster().create(NEW, said.append)
    assert 1 == len(said)
    assert "no answer from Kafka yet (cannot create topic t: " in said[0]


def test_too_few_brokers_for_long_are_refused_with_what_to_do(patch: pytest.MonkeyPatch) -> None:
    """The start stops, with one line."""
    kafka = created(patch, KafkaError(KafkaError.INVALID_REPLICATION_FACTOR, "only 2 brokers"))
    with pytest.raises(SetupRefused, match="cannot create topic t: only 2 brokers: start them"):
        kafka.cluster(SHORT_S).create(NEW, None, "start them")


@pytest.mark.parametrize("code", [KafkaError.POLICY_VIOLATION, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_refused_topic_is_a_fact(patch: pytest.MonkeyPatch, code: int) -> None:
    """Asking again would not help."""
    kafka = created(patch, KafkaError(code, "no"))
    with pytest.raises(SetupRefused, match="cannot create topic t: no"):
        kafka.cluster().create(NEW)
    assert ["create_topics"] == kafka.calls


# -- the cluster itself


def nodes(*ids: int) -> Answer:
    """A described cluster."""
    return SimpleNamespace(cluster_id="c", nodes=[SimpleNamespace(id=one) for one in ids])


def test_a_cluster_without_an_id_is_asked_again(patch: pytest.MonkeyPatch) -> None:
    """Else every database would belong to another cluster."""
    kafka = ScriptedAnswers(patch, describe_cluster=[SimpleNamespace(cluster_id=None), nodes(1)])
    assert "c" == kafka.cluster().id()


def test_session_bounds_come_from_the_first_broker_that_answers(patch: pytest.MonkeyPatch) -> None:
    """The first of the list is dead."""
    gone: Any = KafkaError(KafkaError._TRANSPORT)  # noqa: SLF001
    kafka = ScriptedAnswers(patch, describe_cluster=[nodes(1, 2, 3)], describe_configs=[gone, HANGS, BOUNDS])
    assert (6_000, 1_800_000) == kafka.cluster(3.0).session_bounds_ms()
    none = ScriptedAnswers(patch, describe_cluster=[nodes(1, 2)], describe_configs=[gone])
    with pytest.raises(KafkaUnavailable, match="none of 2 brokers says"):
        none.cluster().session_bounds_ms()


def test_a_try_that_is_begun_when_its_time_is_over_has_no_answer() -> None:
    """The client refuses a negative time-out as an argument, which nobody would take for Kafka's absence."""

    class Client:
        def describe_topics(self, _: object, *, request_timeout: float) -> dict[str, Future[Any]]:
            assert request_timeout >= 0
            return {"log": Future()}

    with pytest.raises(KafkaUnavailable):
        described_topics(cast(Any, Client()), ["log"], Deadline(time, -0.4))
