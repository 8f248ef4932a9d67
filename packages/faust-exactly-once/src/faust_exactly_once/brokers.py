"""Looks at each broker of the cluster once a second, over aiokafka's connections; drops those that hang."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
CONNECT_S: Final = 2.0
"""To connect, TLS and SASL included. The kernel of a frozen broker's machine accepts connections that nobody
serves, and aiokafka connects to one broker at a time: its own bound, that of requests, is half a minute."""
SHUNNED_S: Final = 3.0
"""So long after it was given up a broker is not connected to: those that live would wait for it."""
HUNG_S: Final = 5.0
"""A broker that owes an answer for so long is taken for frozen: its connections are dropped."""
LATE_S: Final = 3.0
"""A broker that owes an answer for so long does not answer, as far as anybody is told."""
GONE_KEPT_S: Final = 3600.0
"""How long a broker that Kafka no longer lists is remembered: it may have been taken away for good."""


class BrokerState(NamedTuple):
    """What a worker knows of one broker.

    Attributes:
        address: `host:port`, or "" of one that has been away since before the worker began.
        answers: False if it is not in Kafka's own list, refuses connections, or owes an answer.
        leads: the partitions, of any source topic, whose leader it is, or was before there was none.
    """

    address: str
    answers: bool
    leads: frozenset[int]


class BrokerWatch:
    """What aiokafka's client knows of each broker; lives in the loop of its thread.

    A look costs nothing where a fetch was answered within the last second, else one request of some bytes
    (ApiVersions) and its answer. `seen` is replaced as a whole, so that another thread may read it.
    """

    def __init__(self, client: Any) -> None:
        self.seen: Mapping[int, BrokerState] = {}
        self._client = client
        self._shun = bound_connecting(client)
        self._listed: dict[int, str] = {}
        self._addresses: dict[int, str] = {}
        self._listed_at: dict[int, float] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._replicas: set[int] = set()
        self._failed: set[int] = set()
        self._heard_at = 0.0
        self._asking: dict[int, tuple[float, asyncio.Task[None]]] = {}

    def heard(self, brokers: Iterable[Any], topics: Iterable[Any]) -> None:
        """Take in a metadata answer: who lives, who leads what; once for each look is enough."""
        now = time.monotonic()
        if self._listed and now - self._heard_at < LOOK_EVERY_S / 2:
            return
        self._heard_at = now
        self._listed = {node: f"{host}:{port}" for node, host, port, *_ in brokers}
        self._addresses.update(self._listed)
        self._listed_at.update(dict.fromkeys(self._listed, now))
        for error, topic, _, partitions in topics:
            if not error:
                self._learn(topic, partitions)
        if any(self._client.cluster.broker_metadata(node) is None for node in self._listed):
            self._client.force_metadata_update()  # one has come (back) that aiokafka has not heard of

    def _learn(self, topic: str, partitions: Iterable[Any]) -> None:
        for _, partition, leader, replicas, *_ in partitions:
            self._replicas.update(replicas)
            if leader >= 0:
                self._leaders[topic, partition] = leader

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                try:
                    self.look()
                except Exception:  # to see less is no reason to stop
                    logger.exception("looking at the brokers failed", extra={"fold": True})
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for _, asking in self._asking.values():
                asking.cancel()

    def look(self) -> None:
        """Look once; a broker that has not answered the look before is not asked again."""
        now = time.monotonic()
        for node in self._listed:
            connection = self._client._conns.get((node, ConnectionGroup.DEFAULT))
            if connection is not None and connection.connected() and _spoke(connection, now):
                self._failed.discard(node)
            elif node not in self._asking:
                self._asking[node] = now, asyncio.get_running_loop().create_task(self._ask(node))
        self.seen = {node: self._one(node, now) for node in sorted(self._known(now))}

    def _known(self, now: float) -> set[int]:
        kept = {node for node, at in self._listed_at.items() if now - at < GONE_KEPT_S}
        unheard = self._replicas - self._listed_at.keys()
        return kept | unheard if self._listed else set()

    def _one(self, node: int, now: float) -> BrokerState:
        asked_at = self._asking[node][0] if node in self._asking else now
        answers = node in self._listed and node not in self._failed and now - asked_at < LATE_S
        leads = frozenset(number for (_, number), leader in self._leaders.items() if leader == node)
        return BrokerState(self._addresses.get(node, ""), answers, leads)

    async def _ask(self, node: int) -> None:
        """Ask it something small, over the connection that fetches; where it hangs, drop every connection."""
        try:
            async with asyncio.timeout(HUNG_S):
                await self._client.send(node, ApiVersionRequest())
            self._failed.discard(node)
        except TimeoutError:
            self._failed.add(node)
            self.drop(node)
        except (KafkaError, OSError):
            self._failed.add(node)
        finally:
            del self._asking[node]

    def drop(self, node: int) -> None:
        """Close its connections: what waits for an answer fails now, not after its request's time-out."""
        self._shun(node)
        for (of, _), connection in tuple(self._client._conns.items()):
            if of == node:
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)


def _spoke(connection: Any, now: float) -> bool:
    return bool(now - connection._last_action < LOOK_EVERY_S)


def bound_connecting(client: Any) -> Callable[[Any], None]:
    """Let aiokafka's client give up connecting to a broker after CONNECT_S, as if it had been refused.

    It connects to one broker at a time, so one that is frozen would keep it from all others for as long. The
    first connection of all goes through the list of brokers as quickly, a second time with patience.

    Returns:
        has the client not connect to a broker for SHUNNED_S; the connections that it has go on.
    """
    connect, bootstrap, patience_ms = client._get_conn, client.bootstrap, client._request_timeout_ms
    shunned_until: dict[Any, float] = {}

    def shun(node_id: Any) -> None:
        shunned_until[node_id] = time.monotonic() + SHUNNED_S

    async def bounded(node_id: Any, **kwargs: Any) -> Any:
        if node_id in shunned_until and not _is_connected(client, node_id, **kwargs):
            if time.monotonic() < shunned_until[node_id]:
                client.force_metadata_update()
                return None
            del shunned_until[node_id]
        try:
            async with asyncio.timeout(CONNECT_S):
                return await connect(node_id, **kwargs)
        except TimeoutError:
            shun(node_id)
            client.force_metadata_update()
            return None

    async def bootstrap_quickly() -> None:
        client._request_timeout_ms = int(CONNECT_S * 1000)
        try:
            await bootstrap()
        except KafkaError:
            client._request_timeout_ms = patience_ms
            await bootstrap()
        finally:
            client._request_timeout_ms = patience_ms

    client._get_conn, client.bootstrap = bounded, bootstrap_quickly
    return shun


def _is_connected(client: Any, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, **_: Any) -> bool:
    connection = client._conns.get((node_id, group))
    return connection is not None and bool(connection.connected())
