"""Fixtures that every test may use: one real broker for each session, fresh names for each test."""

from __future__ import annotations

import atexit
import gc
import os
import sys
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

# what an assertion in there compared is shown, too
pytest.register_assert_rewrite("support", "layer_kit", "simulation")

# on a busy machine an example may take any time, its making too: that says nothing about what it tests
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

NEEDS_NO_SYSTEM = ("unit", "faust-exactly-once", "gateways")
"""Folders that come last: small pieces fill the time that the long ones leave."""
LONG_FILES = (
    "tests/gateways/test_network_faults.py",
    "packages/faust-exactly-once/tests/simulation/test_simulation.py",
    "packages/faust-exactly-once/tests/unit/test_units_commit_exactly_once.py",
    "tests/unit/reconciliation/test_any_list_or_file.py",
    "tests/unit/payments/test_intents_whatever_happens.py",
    "tests/unit/payments/test_gateway_events_in_any_order.py",
    "tests/unit/subscriptions/test_subscription_interleavings.py",
    "tests/unit/repository/test_references.py",
    "tests/unit/payments/test_everything_at_once.py",
    "packages/faust-exactly-once/tests/unit/test_table_and_topic.py",
    "packages/faust-exactly-once/tests/unit/test_store.py",
    "tests/unit/reconciliation/test_matching.py",
    "tests/unit/reconciliation/test_paypal_list_edges.py",
    "packages/faust-exactly-once/tests/unit/test_opening_answers.py",
    "tests/unit/reconciliation/test_files_as_they_come.py",
    "tests/unit/torture/test_command_line.py",
)
"""Of those the ones that took longest when they were measured: they begin first, or a lane ends alone."""
TOGETHER = {
    "tests/cluster/": "cluster",  # share `cluster`: four processes, two gigabytes
    "tests/integration/test_showcase.py": "showcase",  # take Kafka's own port where it is free
    "tests/integration/test_up.py": "showcase",
}
"""Whose tests stay in one lane though they are several files."""


def _leave(lane: int) -> None:
    """End a lane at once: its last report is sent; to take its modules and tests apart takes seconds."""
    if lane == os.getpid():  # not in what was forked from it
        os._exit(0)


if "PYTEST_XDIST_WORKER" in os.environ and "coverage" not in sys.modules:
    atexit.register(_leave, os.getpid())  # the first to be registered is the last to be called
gc.disable()  # until everything is loaded, see pytest_collection_finish


class Lanes(LoadFileScheduling):  # type: ignore[misc] # has no types
    """Tests side by side (-n): a file stays in one lane, for its fixtures; so does what is `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        return _file(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    """Whatever --dist says. Called where nothing is loaded."""
    gc.enable()
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

    def order(item: pytest.Item) -> tuple[bool, int, float, str]:
        name = _file(item.nodeid)
        last = _folder(item) in NEEDS_NO_SYSTEM
        return last, LONG_FILES.index(name) if name in LONG_FILES else len(LONG_FILES), -longest[name], name

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: looking at it again and again took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


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
