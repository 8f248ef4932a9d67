"""What is refused of topics that exist already."""

from collections.abc import Mapping
from typing import Final

import pytest

from streamsocial_billing.exactly_once import SetupRefused
from streamsocial_billing.exactly_once.cluster import TopicFacts
from streamsocial_billing.settings import (
    ANSWERS,
    COMMANDS,
    GATEWAY_EVENTS,
    PAYMENTS,
    RESULTS,
    RETRY,
    Settings,
)
from streamsocial_billing.topics import DAY_MS, PLANS, check_topics

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
