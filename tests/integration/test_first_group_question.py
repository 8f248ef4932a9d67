"""The first question about a group on a broker that is still electing the group's coordinator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from broker import LocalBroker

ROOT = Path(__file__).parents[2]
QUESTION = """
import sys
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.errors import KafkaUnavailable
cluster = Cluster({"bootstrap.servers": sys.argv[1]}, 20.0)
for _ in range(50):
    try:
        print(cluster.committed("group", [("source", 0)]))
        break
    except KafkaUnavailable as exc:
        print(exc)
"""


def test_a_coordinator_that_is_not_ready_does_not_end_the_process(tmp_path: Path) -> None:
    """NOT_COORDINATOR is waited out; librdkafka's admin client met it with SIGSEGV (its issue 5040)."""
    with LocalBroker(tmp_path / "kafka", port=0) as fresh:
        admin = AdminClient({"bootstrap.servers": fresh.bootstrap, "log_level": 0})
        for made in admin.create_topics([NewTopic("source", 1, 1)]).values():
            made.result(60)
        command = [sys.executable, "-c", QUESTION, fresh.bootstrap]
        asked = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120
        )
    assert 0 == asked.returncode, asked.stdout
    assert b"{('source', 0): None}" in asked.stdout
