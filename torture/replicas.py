"""Where the broker that leads a partition keeps its log, and on which port it listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from confluent_kafka import KafkaException

from broker.clients import fresh_client
from torture.segments import Place, partition_folders

ANSWER_WITHIN_S = 5.0
METADATA: Final = "__cluster_metadata"


class Home(NamedTuple):
    """One broker: its log.dirs, its port on 127.0.0.1 past every proxy."""

    log: Path
    port: int


class Replicas(Protocol):
    """The brokers of a cluster with the leaders of its partitions."""

    @property
    def homes(self) -> Mapping[int, Home]:
        """Every broker by its id."""

    def leaders(self) -> dict[Place, int]:
        """The leader of each partition that has one now; raises OSError while nobody says."""


class OnlyBroker:
    """The only broker leads everything that lies in its log; nobody needs to be asked."""

    def __init__(self, log: Path, port: int) -> None:
        self.homes = {1: Home(log, port)}

    def leaders(self) -> dict[Place, int]:
        """Every partition on its disk, but for the controller's own: to clients that is no topic."""
        places = partition_folders(self.homes[1].log)
        return {place: 1 for place in places if place[0] != METADATA}


class ClusterReplicas:
    """Several brokers on this machine; the cluster's metadata say who leads."""

    def __init__(self, homes: Mapping[int, Home]) -> None:
        self.homes = dict(homes)
        self._bootstrap = ",".join(f"127.0.0.1:{home.port}" for home in self.homes.values())

    def leaders(self) -> dict[Place, int]:
        """Of all topics, the internal ones too."""
        return {place: leader for place, (leader, _, _) in self.partitions().items() if leader in self.homes}

    def partitions(self) -> dict[Place, tuple[int, int, int]]:
        """Per partition its leader (-1: none), how many replicas it has, how many are in sync."""
        client = fresh_client(self._bootstrap)
        try:
            topics = client.list_topics(timeout=ANSWER_WITHIN_S).topics
        except KafkaException as error:
            raise OSError(f"no broker names the leaders: {error.args[0].str()}") from error
        return {
            (name, number): (one.leader, len(one.replicas), len(one.isrs))
            for name, topic in topics.items()
            for number, one in topic.partitions.items()
        }


def leading_folders(replicas: Replicas) -> dict[Place, Path]:
    """Of each partition the folder on the disk of its leader."""
    homes, leaders = replicas.homes, replicas.leaders()
    return {place: homes[node].log / f"{place[0]}-{place[1]}" for place, node in leaders.items()}


def node_id(log: Path) -> int:
    """Whose log folder this is, from Kafka's meta.properties; raises OSError, ValueError."""
    lines = (log / "meta.properties").read_text(encoding="utf-8").splitlines()
    return int(next(line.partition("=")[2] for line in lines if line.startswith("node.id=")))
