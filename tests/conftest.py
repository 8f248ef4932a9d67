"""Fixtures that every test may use: one real broker for each session, fresh names for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from broker import LocalBroker
from broker.cluster import LocalCluster


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address `host:port` of a real Kafka: the one that KAFKA names, else our own until the session's end."""
    given = os.environ.get("KAFKA")
    if given:
        yield given
        return
    with LocalBroker(tmp_path_factory.mktemp("kafka"), port=0) as own:
        yield own.bootstrap


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three real brokers of our own until the session's end. A test that ends one starts it again."""
    own = LocalCluster(tmp_path_factory.mktemp("cluster"), port=0)
    own.start(180)  # four Java processes at once, on a machine that may do much else
    try:
        yield own
    finally:
        own.stop()


@pytest.fixture
def unique_name() -> str:
    """A name that no other test has, fit for app ids, groups or transactional ids."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topic_prefix(unique_name: str) -> str:
    """What to put before every topic name, so that tests share one broker without meeting."""
    return f"{unique_name}-"
