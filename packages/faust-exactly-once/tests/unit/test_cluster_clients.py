"""The clients that questions go through: one for all threads, which knows leaders before it is asked."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

from faust_exactly_once.clients import Clients
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.environment import Environment
from faust_exactly_once.errors import KafkaUnavailable

THREADS = 4
SLOWLY_S = 0.05
PLACES = [("orders", 0), ("orders", 1)]


class Kafka:
    """Makes clients slowly, so that who asks at the same moment would make one of its own."""

    def __init__(self, leader: int = 1) -> None:
        self.gate = Barrier(THREADS)
        self.made: list[str] = []
        self.leader = leader
        self.asked: list[str] = []

    def admin(self, _: Any) -> Any:
        """An admin client that is asked for topics, then for offsets."""
        time.sleep(SLOWLY_S)
        self.made.append("admin")
        return SimpleNamespace(list_topics=self.list_topics, list_offsets=self.list_offsets)

    def reader(self, _: Any) -> Any:
        """A consumer without any offset."""
        time.sleep(SLOWLY_S)
        self.made.append("reader")
        return SimpleNamespace(committed=lambda partitions, timeout: partitions)

    def list_topics(self, timeout: float) -> Any:
        """Two partitions."""
        self.asked.append("leaders")
        partitions = dict.fromkeys((0, 1), SimpleNamespace(leader=self.leader))
        return SimpleNamespace(topics={"orders": SimpleNamespace(partitions=partitions)})

    def list_offsets(self, wanted: Any, **_: Any) -> Any:
        """All at 5."""
        self.asked.append("offsets")
        five = SimpleNamespace(offset=5, leader_epoch=0)
        return {tp: SimpleNamespace(result=lambda _: five) for tp in wanted}

    def cluster(self, timeout_s: float = 600.0) -> Cluster:
        """One that is asked; a sixth of its time is the first try's, after which there is another client."""
        return Cluster({}, timeout_s, Environment(Clients(admin=self.admin, consumer=self.reader)))


def test_threads_that_ask_at_the_same_moment_share_one_client() -> None:
    """Four openings: one admin client, one reader; the others would be dropped while their threads begin."""
    kafka = Kafka()
    cluster = kafka.cluster()

    def ask(_: int) -> None:
        kafka.gate.wait(60)
        cluster.committed("group", PLACES)
        cluster.log_ends(PLACES)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(THREADS)))
    assert ["admin", "reader"] == sorted(kafka.made)


def test_leaders_are_known_before_offsets_are_asked_for() -> None:
    """librdkafka that looks for them itself may end the process; asked once in a minute."""
    kafka = Kafka()
    cluster = kafka.cluster()
    assert {5} == {one.stable for one in cluster.log_ends(PLACES[:1]).values()}
    assert ["leaders", "offsets", "offsets", "offsets"] == kafka.asked
    cluster.log_ends(PLACES[:1])
    assert 1 == kafka.asked.count("leaders")
    cluster.log_ends(PLACES)
    cluster.log_ends(PLACES[:1])
    assert 2 == kafka.asked.count("leaders")


def test_a_partition_without_a_leader_is_asked_for_again_not_asked_for_offsets() -> None:
    """KafkaUnavailable names it once the time is up."""
    kafka = Kafka(leader=-1)
    with pytest.raises(KafkaUnavailable, match=r"no leader is known of \[\('orders', 0\)\]"):
        kafka.cluster(0.3).log_ends(PLACES[:1])
    assert {"leaders"} == set(kafka.asked)
