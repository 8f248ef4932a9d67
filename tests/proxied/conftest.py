"""A real broker behind the proxies of the torture, for tests of what lies between it and its clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import NewTopic

from faust_exactly_once.cluster import Cluster
from torture.cluster import ProxiedBroker
from torture.proxy import Link

CREATED_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedBroker]:
    """A broker of these tests' own, with two links."""
    with ProxiedBroker(tmp_path_factory.mktemp("torture") / "kafka", ["w1", "w2"]) as running:
        yield running


@pytest.fixture
def link(kafka: ProxiedBroker) -> Iterator[Link]:
    """The first link; it is whole again afterwards."""
    yield kafka.links["w1"]
    kafka.links["w1"].trouble()


@pytest.fixture
def topic(kafka: ProxiedBroker, unique_name: str) -> str:
    """A new topic with one partition."""
    Cluster({"bootstrap.servers": kafka.bootstrap}, CREATED_WITHIN_S).create([NewTopic(unique_name, 1, 1)])
    return unique_name
