"""Three brokers under torture: what System asks of its Kafka, for a cluster behind proxies."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from broker import LocalBroker
from broker.cluster import Node
from torture.cluster import ABORTS_EVERY_MS
from torture.network import ProxiedCluster
from torture.proxy import Bundle, Link
from torture.replicas import ClusterReplicas, Home

SETTINGS: Final = {
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": str(ABORTS_EVERY_MS),
    # a follower that does not fetch leaves the replicas in sync within a fault, not after Kafka's 30 s
    "replica.lag.time.max.ms": "5000",
}
BACK_WITHIN_S: Final = 300.0
"""How long brokers may take to start: up to 50 s were seen where eight jobs shared two cores."""
WHOLE_WITHIN_S: Final = 120.0
"""How long three brokers may take after a fault until every replica is in sync again, on a busy machine."""
LOOK_EVERY_S: Final = 0.3


class ThreeBrokers(ProxiedCluster):
    """Three brokers and their controller, a process each, every connection behind a proxy.

    `links`, for faults of a client: under its name the links to all brokers, under `name:number` one of them.
    """

    count = 3

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        super().__init__(folder, list(names), SETTINGS)

    @property
    def links_of_clients(self) -> dict[str, Link | Bundle]:
        """By the name of the client; by `client:number` the one to that broker."""
        found: dict[str, Link | Bundle] = {}
        for client in self._clients:
            own = {number: self.links[client, number] for number in self.homes}
            found |= {f"{client}:{number}": link for number, link in own.items()}
            found[client] = Bundle(own)
        return found

    @property
    def bootstrap(self) -> str:
        """Addresses past every proxy, `host:port,host:port,host:port`."""
        return self.cluster.bootstrap

    @property
    def own_url(self) -> str:
        """The same, as Faust writes them."""
        return self.cluster.url

    @property
    def homes(self) -> dict[int, Home]:
        """Of each broker its log folder, its port past every proxy."""
        return {node.number: Home(node.data_dir / "log", node.port) for node in self.cluster.brokers}

    @property
    def replicas(self) -> ClusterReplicas:
        """Who leads what."""
        return ClusterReplicas(self.homes)

    def url(self, name: str) -> str:
        """Addresses through this name's proxies, as Faust writes them."""
        return ";".join(f"kafka://{address}" for address in self.cluster.bootstrap_for(name).split(","))

    def node(self, number: int) -> Node:
        """The broker with this number."""
        return self.cluster.brokers[number - 1]

    def heal_brokers(self) -> None:
        """Whatever a fault has done to brokers or controller: all run, all reach each other."""
        self.heal()
        self.restart(self.cluster.nodes)

    def away(self) -> list[str]:
        """The processes that do not run now, in words."""
        nodes = self.cluster.brokers
        down = [f"broker {node.number} down" for node in nodes if not node.running]
        return down + ([] if self.cluster.controller.running else ["controller down"])

    def settle(self) -> None:
        """After the last fault: everything runs, every replica is in sync."""
        self.heal_brokers()
        self.wait_whole()

    def restart(self, nodes: Iterable[LocalBroker]) -> None:
        """Wake what is frozen, start what does not run: the controller first, brokers together."""
        nodes = list(nodes)
        for node in nodes:
            node.resume()
            if not node.running:
                node.kill()  # lets go of what the dead process held
        ended = [node for node in nodes if not node.running]
        if len(ended) > 1:
            self.cluster.start(BACK_WITHIN_S)
        for node in ended:
            node.start(BACK_WITHIN_S)

    def wait_whole(self, within_s: float = WHOLE_WITHIN_S) -> float | None:
        """Seconds until every replica of every partition was in sync; None: not within so many."""
        began = time.monotonic()
        while time.monotonic() < began + within_s:
            if self.is_whole():
                return round(time.monotonic() - began, 2)
            time.sleep(LOOK_EVERY_S)
        return None

    def is_whole(self) -> bool:
        """True while each broker says of every partition that it has a leader and all its replicas in sync.

        One alone might say so: a broker that was cut off, or frozen, knows the cluster as it was before.
        """
        try:
            said = [ClusterReplicas({number: home}).partitions() for number, home in self.homes.items()]
        except OSError:
            return False
        states = [state for one in said for state in one.values()]
        agree = all(one.keys() == said[0].keys() for one in said)
        return agree and all(leader >= 0 and there == isr for leader, there, isr in states)
