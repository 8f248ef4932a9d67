"""The first start on three brokers: nothing is there, brokers hear of new topics one after the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from support.first_start import first_start, wait_all_run
from support.system import free_port
from support.until import until

import tables
from broker.cluster import LocalCluster
from faust_exactly_once.cluster import Cluster
from streamsocial_billing.kafka.topics import PLANS

START_S = 240.0  # on a busy machine; a quiet one needs 8 s


@pytest.fixture
def whole(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The session's three brokers, all of them up again after the test."""
    yield cluster
    cluster.start()


def test_two_workers_that_start_at_once_on_fresh_topics_both_live(
    whole: LocalCluster, tmp_path: Path, unique_name: str
) -> None:
    """Both create, both are asked about topics that their broker has not heard of; all tasks run."""
    with first_start(whole.bootstrap, tmp_path, unique_name) as workers:
        wait_all_run(workers, START_S)
    admin = AdminClient({"bootstrap.servers": whole.bootstrap})

    def ours() -> dict[str, Any]:
        described = admin.list_topics(timeout=60).topics
        return {name: topic for name, topic in described.items() if name.startswith(unique_name)}

    # a changelog for each table; the broker that is asked may be the last to hear of one
    until(lambda: len(PLANS) + len(tables.ALL) <= len(ours()), "all topics are known")
    copies = {len(one.replicas) for topic in ours().values() for one in topic.partitions.values()}
    assert {3} == copies  # as the brokers have it


def test_a_broker_of_the_list_that_was_never_there_keeps_no_worker_from_starting(
    whole: LocalCluster, tmp_path: Path, unique_name: str
) -> None:
    """The first address is dead from the beginning, so is one of the three that the others name."""
    whole.brokers[0].kill()
    nobody = f"127.0.0.1:{free_port()}"
    with first_start(f"{nobody},{whole.bootstrap}", tmp_path, unique_name) as workers:
        wait_all_run(workers, START_S)


def test_session_bounds_are_those_of_any_broker_that_answers(whole: LocalCluster) -> None:
    """Each is asked about itself: one that has just died is passed over."""
    cluster = Cluster({"bootstrap.servers": whole.bootstrap}, 90.0)
    bounds = cluster.session_bounds_ms()
    whole.brokers[0].kill()
    assert bounds == cluster.session_bounds_ms()


def test_more_copies_than_brokers_are_refused_with_what_to_do(
    whole: LocalCluster, tmp_path: Path, unique_name: str
) -> None:
    """After it was asked again for a while, since a broker may be restarting; the line names the setting."""
    with first_start(whole.bootstrap, tmp_path, unique_name, 1, BILLING_REPLICATION=5) as (worker,):
        worker.wait_for_line("no answer from Kafka yet", START_S)
        worker.wait_for_line(
            "cannot create topic .+replication factor.+"
            ": start the missing brokers, or set BILLING_REPLICATION$",
            START_S,
        )


QUESTION = """
import sys
from faust_exactly_once.cluster import Cluster
print(Cluster({"bootstrap.servers": sys.argv[1]}, 30.0).id())
"""


def test_a_frozen_broker_of_the_list_costs_no_answer(whole: LocalCluster, tmp_path: Path) -> None:
    """It takes connections but says nothing; the next try asks another one."""
    victim = whole.brokers[0]
    victim.pause()
    try:
        for _ in range(6):
            command = [sys.executable, "-c", QUESTION, whole.bootstrap]
            asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
            assert (0, "") == (asked.returncode, asked.stderr)
    finally:
        victim.resume()
