"""What a long recovery says of itself, on a real changelog."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from faust_exactly_once import Options, recovery
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.database import PartitionStore
from faust_exactly_once.recovery import Recovery, plan

KEYS = 20_000
LINE = re.compile(r"task 0 recovers: (\d+) of (\d+) records, (\d+) %")


def test_a_long_recovery_logs_how_far_it_is(
    broker: str, tmp_path: Path, unique_name: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Records done of records in all, growing up to the end; silent where it is soon through."""
    client = {"bootstrap.servers": broker}
    cluster = Cluster(client, 60)
    cluster.create([NewTopic(unique_name, 1, 1, config={"cleanup.policy": "compact"})])
    fill(client, unique_name)
    caplog.set_level(logging.INFO, logger=recovery.__name__)
    monkeypatch.setattr(recovery, "PROGRESS_EVERY_S", 3600.0)
    assert [] == progress_of(client, cluster, unique_name, tmp_path / "quick", caplog)
    monkeypatch.setattr(recovery, "PROGRESS_EVERY_S", 0.0)
    steps = progress_of(client, cluster, unique_name, tmp_path / "slow", caplog)
    assert len(steps) >= 2
    assert sorted(steps) == steps
    assert (KEYS, KEYS, 100) == steps[-1]


def fill(client: dict[str, str], topic: str) -> None:
    """So many keys in one partition."""
    producer = Producer({**client, "linger.ms": 20, "enable.idempotence": True})
    for number in range(KEYS):
        producer.produce(topic, b"{}", key=b"key-%d" % number)
        producer.poll(0)
    assert 0 == producer.flush(60)
    producer.close()


def progress_of(
    client: dict[str, str], cluster: Cluster, topic: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> list[tuple[int, int, int]]:
    """Recover a new database; what the log said on the way: done, total, percent."""
    caplog.clear()
    store = PartitionStore(folder)
    store.open()
    log = (topic, 0)
    item = plan("t", log, store, "cluster", cluster.topics([topic])[topic], cluster.log_ends([log])[log])
    Recovery(Options(client_config=client), lambda text: None).run([item], lambda: False)
    assert b"{}" == store.get(b"key-%d" % (KEYS - 1))
    store.close()
    found = [LINE.search(one.getMessage()) for one in caplog.records]
    return [(int(one[1]), int(one[2]), int(one[3])) for one in found if one]
