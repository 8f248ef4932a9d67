"""A member that rejoins its group: its tasks are opened anew while aiokafka still holds old fetches."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from support.producers import idempotent_producer

from faust_exactly_once.cluster import Cluster
from processes.process import Process

APP = Path(__file__).parents[1] / "support" / "rejoining_app.py"
REJOINS = 12


@pytest.mark.timeout(600)
def test_nothing_is_committed_that_no_handler_saw(broker: str, tmp_path: Path, unique_name: str) -> None:
    """Records that a fetch of the old epoch drained are fetched again by the new one.

    Seen red on the layer before fetches carried their task epoch.
    """
    topic = f"{unique_name}-src"
    cluster = Cluster({"bootstrap.servers": broker}, 60)
    cluster.create([NewTopic(topic, 2, 1)])
    command = [sys.executable, "-P", str(APP), unique_name, broker, str(tmp_path), str(REJOINS)]
    worker = Process(unique_name, [*command, "worker", "--without-web"], tmp_path / "log")
    worker.launch()
    sender = threading.Thread(target=_send_while_running, args=(worker, broker, topic))
    sender.start()
    ended = worker.wait(300)
    worker.kill()
    sender.join()
    assert (True, 0) == (ended, worker.code), worker.log_file.read_text()[-2000:]
    committed = cluster.committed(unique_name, [(topic, 0), (topic, 1)])
    seen = _handled(tmp_path / "handled")
    holes = {p: sorted(set(range(committed[topic, p] or 0)) - seen[p]) for p in (0, 1)}
    assert {0: [], 1: []} == holes
    assert min(len(seen[0]), len(seen[1])) >= 100 * REJOINS


def _send_while_running(worker: Process, broker: str, topic: str) -> None:
    """About 400 records a second, without transactions: every offset is an event."""
    producer = idempotent_producer(broker, {"linger.ms": 2})
    number = 0
    while worker.running:
        producer.produce(topic, b"%d" % number, key=b"k%d" % (number % 50), partition=number % 2)
        number += 1
        producer.poll(0.0025)
    producer.flush(60)


def _handled(path: Path) -> defaultdict[int, set[int]]:
    seen: defaultdict[int, set[int]] = defaultdict(set)
    for line in path.read_text().splitlines():
        partition, offset = map(int, line.split())
        seen[partition].add(offset)
    return seen
