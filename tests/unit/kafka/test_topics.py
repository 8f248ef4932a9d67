"""What is refused of topics that exist already."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from faust_exactly_once import SetupRefused
from faust_exactly_once.facts import TopicFacts
from streamsocial_billing.kafka.topics import DAY_MS, PLANS, check_topics, create_topics
from streamsocial_billing.settings import (
    ANSWERS,
    COMMANDS,
    GATEWAY_EVENTS,
    PAYMENTS,
    RESULTS,
    RETRY,
    Settings,
)

NOTHING: Final[Mapping[str, dict[str, str]]] = {}


def facts(changed: Mapping[str, dict[str, str]] = NOTHING) -> dict[str, TopicFacts]:
    """The topics as the app creates them, with some settings changed."""
    made = {}
    for plan in PLANS:
        made[plan.name] = TopicFacts("id", 8, plan.config | changed.get(plan.name, {}))
    return made


def test_the_topics_as_created_are_fine() -> None:
    """Nothing to refuse."""
    check_topics(Settings(), facts())


@pytest.mark.parametrize("asked", [1, 7, 12])
def test_another_partition_count_than_the_topics_have_is_refused(asked: int) -> None:
    """One line that names both and what to set; it was accepted in silence."""
    wanted = f"BILLING_PARTITIONS is {asked}, but topic payments has 8 partitions: set BILLING_PARTITIONS=8"
    with pytest.raises(SetupRefused, match=wanted):
        check_topics(Settings(partitions=asked), facts())


class OldCluster:
    """A cluster of an older release: some topics are missing."""

    def __init__(self, *names: str) -> None:
        self.there = {name: one for name, one in facts().items() if name in names}
        self.created: list[str] = []

    def topics(self, names: Any) -> dict[str, TopicFacts]:
        """Those that are there."""
        return {name: self.there[name] for name in names if name in self.there}

    def create(self, topics: Any, say: Any, advice: str) -> None:
        """Keep what is made."""
        self.created += [one.topic for one in topics]
        self.replicas = {one.replication_factor for one in topics}

    def facts_of(self, names: Any) -> dict[str, TopicFacts]:
        """All of them."""
        return {name: facts()[name] for name in names}


def test_no_topic_is_made_with_a_partition_count_that_fits_no_other() -> None:
    """A topic of a newer release, made with the wrong count, would keep every worker from starting."""
    cluster: Any = OldCluster(PAYMENTS, RETRY)
    with pytest.raises(SetupRefused, match="set BILLING_PARTITIONS=8"):
        create_topics(Settings(partitions=12), cluster)
    assert [] == cluster.created


@pytest.mark.parametrize(("replication", "asked"), [(0, -1), (3, 3)])
def test_without_a_replication_the_brokers_choose(replication: int, asked: int) -> None:
    """-1 in CreateTopics is their default.replication.factor."""
    cluster: Any = OldCluster()
    create_topics(Settings(replication=replication), cluster)
    assert {asked} == cluster.replicas
    assert len(PLANS) == len(cluster.created)


@pytest.mark.parametrize("name", [PAYMENTS, RETRY, GATEWAY_EVENTS])
def test_inputs_are_never_kept_longer_than_payments_are_remembered(name: str) -> None:
    """An older event could be charged again."""
    for kept in (36 * DAY_MS, -1):
        with pytest.raises(SetupRefused, match=f"topic {name} keeps records {kept} ms"):
            check_topics(Settings(), facts({name: {"retention.ms": str(kept)}}))
    check_topics(Settings(), facts({name: {"retention.ms": str(35 * DAY_MS)}}))


@pytest.mark.parametrize("name", [RESULTS, COMMANDS, ANSWERS])
def test_books_and_commands_are_kept_for_ever(name: str) -> None:
    """What happened, what people did."""
    with pytest.raises(SetupRefused, match=f"topic {name} needs retention.ms=-1"):
        check_topics(Settings(), facts({name: {"retention.ms": str(30 * DAY_MS)}}))


@pytest.mark.parametrize("name", [RETRY, GATEWAY_EVENTS, COMMANDS])
def test_sources_share_tasks_so_their_counts_agree(name: str) -> None:
    """Another partition count would send a user's events to another task than his payments."""
    there = facts()
    there[name] = TopicFacts("id", 4, there[name].config)
    with pytest.raises(SetupRefused, match=f"topic {name} has 4 partitions, payments has 8"):
        check_topics(Settings(), there)
