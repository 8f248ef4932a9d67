"""Fixtures that every test may use: one real broker for each session, fresh names for each test."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from broker import LocalBroker
from broker.cluster import LocalCluster

if TYPE_CHECKING:
    from support.wiremock_server import WireMock

# on a busy machine an example may take any time: that says nothing about what it tests
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

NEEDS_NO_SYSTEM = ("unit", "faust-exactly-once", "gateways")
"""Folders that come last: small pieces fill the time that the long ones leave."""
TOGETHER = {
    "tests/cluster/": "cluster",  # share `cluster`: four processes, two gigabytes
    "tests/integration/test_showcase.py": "showcase",  # take Kafka's own port where it is free
    "tests/integration/test_up.py": "showcase",
}
"""Whose tests stay in one lane though they are several files."""


class Lanes(LoadFileScheduling):  # type: ignore[misc] # has no types
    """Tests side by side (-n): a file stays in one lane, for its fixtures; so does what is `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        return _file(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    """Whatever --dist says."""
    config.option.loadscopereorder = False
    return Lanes(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In lanes the files that may take longest, by the time-outs of their tests, begin first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    longest: defaultdict[str, float] = defaultdict(float)
    for item in items:
        longest[_file(item.nodeid)] += _timeout_s(item)

    def order(item: pytest.Item) -> tuple[bool, float, str]:
        name = _file(item.nodeid)
        return _folder(item) in NEEDS_NO_SYSTEM, -longest[name], name

    items.sort(key=order)


def _file(nodeid: str) -> str:
    named = (name for prefix, name in TOGETHER.items() if nodeid.startswith(prefix))
    return next(named, nodeid.partition("::")[0])


def _folder(item: pytest.Item) -> str:
    """`unit` of tests/unit/reconciliation/test_matching.py, `faust-exactly-once` of the layer's."""
    return item.nodeid.split("/")[1]


def _timeout_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0


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


@pytest.fixture(scope="module")
def wiremock() -> Iterator[WireMock]:
    """A WireMock, for what Stripe and PayPal answer."""
    from support.wiremock_server import WireMock  # it draws in the whole app

    with WireMock() as server:
        yield server
