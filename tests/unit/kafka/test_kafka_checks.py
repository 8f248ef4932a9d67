"""Which settings of a cluster are said to lose or to stop payments: each row of the docs' table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streamsocial_billing.kafka.production_checks import ClusterSeen, TopicSeen, problems

PAGE = (Path(__file__).resolve().parents[3] / "docs/operations.md").read_text(encoding="utf-8")
SAFE = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "retention.bytes": "-1"}
PAYMENTS = TopicSeen("payments", 3, SAFE)
OFFSETS = TopicSeen("__consumer_offsets", 3, SAFE)
COMMITS = TopicSeen("__transaction_state", 3, SAFE)
BROKER = {
    "offsets.retention.minutes": "43200", "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2",
    "min.insync.replicas": "2",
}  # fmt: skip
GOOD = ClusterSeen(3, (PAYMENTS, OFFSETS, COMMITS), BROKER)


def with_topic(topic: TopicSeen, copies: int = 3, **config: str) -> ClusterSeen:
    """The good cluster, one topic's copies or settings changed (_ for .)."""
    changed = replace(
        topic, copies=copies, config=SAFE | {name.replace("_", "."): value for name, value in config.items()}
    )
    return replace(GOOD, topics=tuple(changed if one is topic else one for one in GOOD.topics))


def test_three_copies_two_in_sync_everywhere_is_fine() -> None:
    """What docs/operations.md asks for."""
    assert [] == problems(GOOD)


def test_a_single_broker_is_no_cluster() -> None:
    """One copy is all that it can hold: nothing is said to somebody who tries the app out."""
    alone = TopicSeen("payments", 1, {"min.insync.replicas": "1"})
    assert [] == problems(ClusterSeen(1, (alone,), {"offsets.retention.minutes": "1"}))


ROWS = [
    (with_topic(PAYMENTS, min_insync_replicas="1"), "payments: min.insync.replicas=1: "),
    (with_topic(PAYMENTS, 1), "payments: one copy only: "),
    (with_topic(PAYMENTS, min_insync_replicas="3"), "payments: min.insync.replicas is as high as "),
    (with_topic(PAYMENTS, unclean_leader_election_enable="true"), "payments: unclean.leader.elec"),
    (with_topic(PAYMENTS, retention_bytes="1000"), "payments: retention.bytes deletes "),
    (with_topic(OFFSETS, 1), "__consumer_offsets: one copy only: "),
    (with_topic(OFFSETS, min_insync_replicas="1"), "__consumer_offsets: min.insync.replicas=1: "),
    (with_topic(COMMITS, 1), "__transaction_state: one copy only: "),
    (with_topic(COMMITS, min_insync_replicas="1"), "__transaction_state: min.insync.replicas=1: "),
    (with_topic(COMMITS, min_insync_replicas="3"), "__transaction_state: min.insync.replicas is as high "),
    (replace(GOOD, config=BROKER | {"offsets.retention.minutes": "10080"}), "offsets.retention.minutes=10"),
]


@pytest.mark.parametrize(("seen", "begins"), ROWS)
def test_each_broken_setting_is_one_line(seen: ClusterSeen, begins: str) -> None:
    """It names the topic, what would be lost or stop, what to set."""
    (line,) = problems(seen)
    assert line.startswith(begins)
    assert "set " in line or "add copies" in line


def test_internal_topics_that_do_not_exist_yet_are_judged_by_the_brokers_settings() -> None:
    """Before the first start of all they are not there; they will be made so."""
    careless = BROKER | {"offsets.topic.replication.factor": "1", "transaction.state.log.min.isr": "1"}
    found = problems(ClusterSeen(3, (PAYMENTS,), careless))
    assert ["__consumer_offsets: one copy only", "__transaction_state: min.insync.replicas=1"] == [
        ":".join(line.split(":")[:2]) for line in found
    ]


def test_many_topics_with_one_fault_are_one_line() -> None:
    """The first ones by name, `payments` before all; of the others how many."""
    topics = tuple(TopicSeen(name, 1, SAFE) for name in ("payments", "a", "b", "c", "d"))
    (line,) = problems(ClusterSeen(3, topics, {}))
    assert line.startswith("payments, a, b and 2 more: one copy only: ")


def test_what_loses_money_comes_before_what_stops() -> None:
    """Whoever reads one line reads the worst."""
    stops = replace(PAYMENTS, config=SAFE | {"min.insync.replicas": "3"})
    found = problems(replace(GOOD, topics=(stops, replace(OFFSETS, copies=1), COMMITS)))
    assert ["__consumer_offsets", "payments"] == [line.split(":")[0] for line in found]


@pytest.mark.parametrize(
    "name",
    ["min.insync.replicas", "unclean.leader.election.enable", "retention.bytes", "offsets.retention.minutes",
     "transaction.state.log.min.isr", "offsets.topic.replication.factor"],
)  # fmt: skip
def test_the_page_explains_every_setting_that_is_checked(name: str) -> None:
    """In the section that each line names."""
    section = PAGE[PAGE.index("## Kafka in production"):]
    assert f"`{name}" in section[: section.index("\n## ", 5)]
