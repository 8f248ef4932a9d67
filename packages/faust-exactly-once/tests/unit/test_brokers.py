"""What a worker knows of each broker; the client is scripted, the event loop is real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError

from faust_exactly_once import brokers
from faust_exactly_once.brokers import BrokerWatch, bound_connecting
from faust_exactly_once.partition_counts import counts_of

BROKERS = [(number, f"k{number}", 9092, None) for number in (1, 2, 3)]
PLACES = [(0, partition, partition + 1, [1, 2, 3], [1, 2, 3]) for partition in (0, 1, 2)]
TOPICS = [(0, "orders", False, PLACES)]


NOW_S = 1000.0


@pytest.fixture(autouse=True)
def stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock: a machine that stalls makes nobody late."""
    monkeypatch.setattr(brokers, "time", SimpleNamespace(monotonic=lambda: NOW_S))


class Connection:
    """One of aiokafka's; it has spoken this moment unless the test says otherwise."""

    def __init__(self, quiet_s: float = 0.0) -> None:
        self._last_action = NOW_S - quiet_s
        self.closed = False
        self.gone = asyncio.Event()

    def connected(self) -> bool:
        """Until it is closed."""
        return not self.closed

    def close(self, reason: object) -> None:
        """As the watch asks for it."""
        self.closed = True
        self.gone.set()


class Client:
    """Stands where aiokafka's client is."""

    def __init__(self, answer: Callable[[int], Awaitable[None]]) -> None:
        self._conns: dict[tuple[int, ConnectionGroup], Connection] = {}
        self._answer = answer
        self._request_timeout_ms = 30_000
        self.unreachable_in = 0
        self.bootstraps: list[int] = []
        self.connects: list[int] = []
        self.asked: list[int] = []
        self.refreshed = 0
        self.cluster = SimpleNamespace(broker_metadata=lambda node: node if node != 3 else None)

    async def send(self, node: int, request: object) -> None:
        """One request."""
        self.asked.append(node)
        await self._answer(node)

    async def _get_conn(self, node_id: int, *, group: ConnectionGroup) -> object:
        """A frozen broker's machine accepts, nobody serves; a connection that is there is given."""
        self.connects.append(node_id)
        return self._conns.get((node_id, group)) or await asyncio.Event().wait()

    async def bootstrap(self) -> None:
        """The list of brokers, one after the other."""
        self.bootstraps.append(self._request_timeout_ms)
        if self._request_timeout_ms < self.unreachable_in:
            raise KafkaConnectionError("none of them")

    def force_metadata_update(self) -> None:
        """Counted."""
        self.refreshed += 1


async def at_once(node: int) -> None:
    """A broker that answers."""


def watching(client: Client) -> BrokerWatch:
    """A watch that has heard of three brokers."""
    watch = BrokerWatch(client)
    watch.heard(BROKERS, TOPICS)
    return watch


async def looks(watch: BrokerWatch, times: int = 2) -> dict[int, bool]:
    """Who answers, after some looks with their answers."""
    for _ in range(times):
        watch.look()
        for _ in range(5):
            await asyncio.sleep(0)
    watch.look()
    return {node: one.answers for node, one in watch.seen.items()}


def test_a_broker_that_speaks_anyway_is_not_asked() -> None:
    """Nothing is sent to one whose fetch was answered this second; the others are asked once a look."""
    client = Client(at_once)
    client._conns[1, ConnectionGroup.DEFAULT] = Connection()  # noqa: SLF001
    client._conns[2, ConnectionGroup.DEFAULT] = Connection(quiet_s=2.0)  # noqa: SLF001
    assert {1: True, 2: True, 3: True} == asyncio.run(looks(watching(client), 1))
    assert {2, 3} == set(client.asked)


def test_a_broker_that_refuses_does_not_answer() -> None:
    """The others do."""

    async def refuses(node: int) -> None:
        if node == 2:
            raise NodeNotReadyError("refused")

    watch = watching(Client(refuses))
    assert {1: True, 2: False, 3: True} == asyncio.run(looks(watch))
    assert ("k2:9092", frozenset([1])) == (watch.seen[2].address, watch.seen[2].leads)


def test_a_broker_that_kafka_does_not_list_does_not_answer() -> None:
    """Also one that was away before this worker began: its replicas are known, its address is not."""
    watch = BrokerWatch(Client(at_once))
    watch.heard(BROKERS[:2], TOPICS)
    assert {1: True, 2: True, 3: False} == asyncio.run(looks(watch))
    assert "" == watch.seen[3].address


def test_a_partition_without_a_leader_waits_for_the_one_it_had() -> None:
    """Kafka says -1 while it chooses another."""
    watch = watching(Client(at_once))
    watch._heard_at = 0.0  # noqa: SLF001 - a look later
    watch.heard(BROKERS[:2], [(0, "orders", False, [(5, 2, -1, [1, 2, 3], [3])])])
    assert {1: True, 2: True, 3: False} == asyncio.run(looks(watch))
    assert frozenset([2]) == watch.seen[3].leads


def test_a_broker_that_hangs_loses_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them: what waits for it, a heartbeat say, fails now instead of after half a minute."""
    monkeypatch.setattr(brokers, "HUNG_S", 0.01)

    async def hangs(node: int) -> None:
        if node == 2:
            await asyncio.Event().wait()

    client = Client(hangs)
    group = client._conns[2, ConnectionGroup.COORDINATION] = Connection()  # noqa: SLF001
    other = client._conns[1, ConnectionGroup.COORDINATION] = Connection()  # noqa: SLF001
    watch = watching(client)

    async def until_dropped() -> dict[int, bool]:
        watch.look()
        await asyncio.wait_for(group.gone.wait(), 60)
        return await looks(watch, 0)

    assert {1: True, 2: False, 3: True} == asyncio.run(until_dropped())
    assert not other.closed


def test_a_broker_that_comes_has_aiokafka_learn_of_it() -> None:
    """It would ask for metadata only minutes later (number 3 is not known to the scripted client)."""
    client = Client(at_once)
    watch = BrokerWatch(client)
    watch.heard(BROKERS[:2], TOPICS)
    assert 0 == client.refreshed
    watch._heard_at = 0.0  # noqa: SLF001 - a look later
    watch.heard(BROKERS, TOPICS)
    assert 1 == client.refreshed


def test_connecting_to_a_frozen_broker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had refused; otherwise no other broker could be connected to meanwhile."""
    monkeypatch.setattr(brokers, "CONNECT_S", 0.01)
    client: Any = Client(at_once)
    bound_connecting(client)
    client._conns[2, ConnectionGroup.DEFAULT] = Connection()  # noqa: SLF001

    async def connects(node: int) -> bool:
        return await client._get_conn(node, group=ConnectionGroup.DEFAULT) is not None  # noqa: SLF001

    assert not asyncio.run(connects(1))
    assert (1, [1]) == (client.refreshed, client.connects)
    assert not asyncio.run(connects(1))
    assert [1] == client.connects, "nobody waits for it again so soon"
    monkeypatch.setattr(brokers, "CONNECT_S", 60)
    assert asyncio.run(connects(2)), "others are connected to meanwhile"


@pytest.mark.parametrize(("needs_ms", "tries"), [(0, [2_000]), (10_000, [2_000, 30_000])])
def test_a_frozen_broker_at_the_head_of_the_list_is_passed_by_quickly(
    needs_ms: int, tries: list[int]
) -> None:
    """A slow network gets a second round with patience; further connections have their own bound."""
    client: Any = Client(at_once)
    client.unreachable_in = needs_ms
    bound_connecting(client)
    asyncio.run(client.bootstrap())
    assert (tries, 30_000) == (client.bootstraps, client._request_timeout_ms)  # noqa: SLF001


@pytest.mark.parametrize(
    "topics",
    [
        [(3, "orders", False, [])],
        [],
        [(5, "orders", False, [(5, 0, -1, [], [])])],
    ],
)
def test_a_topic_that_the_broker_does_not_know_is_no_count(topics: list[Any]) -> None:
    """It is asked again: a broker that is behind must not hide that a topic has grown."""
    with pytest.raises(KafkaError):
        counts_of(topics, ["orders"])


def test_a_known_topic_has_a_count() -> None:
    """Also while a partition of it has no leader."""
    topics = [(0, "orders", False, [(5, 0, -1, [1], []), (0, 1, 2, [2], [2])])]
    assert {"orders": 2} == counts_of(topics, ["orders"])


def test_an_error_of_the_connection_is_no_answer() -> None:
    """Whatever aiokafka raises."""

    async def breaks(node: int) -> None:
        raise KafkaConnectionError("closed")

    assert {1: False, 2: False, 3: False} == asyncio.run(looks(watching(Client(breaks))))
