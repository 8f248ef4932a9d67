"""Three nodes that are broker and controller each, a quorum of three: Kafka's combined mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from broker import BrokerError, new_cluster_id
from broker.cluster import BaseCluster, Node, replicated
from broker.ports import stable_ports

NODES = 3


class CombinedNode(Node):
    """Broker and controller in one process."""

    def __init__(
        self, data_dir: Path, number: int, ports: Mapping[int, tuple[int, int]], cluster_id: str,
        settings: Mapping[str, str],
    ) -> None:  # fmt: skip
        own = {
            "process.roles": "broker,controller",
            "listeners": "CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": "CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, (_, port) in ports.items()),
            # as broker.session.timeout.ms: a new leader within a few seconds
            "controller.quorum.fetch.timeout.ms": "1500",
            "controller.quorum.election.timeout.ms": "1000",
        }
        super().__init__(data_dir, number, ports[number][0], own | dict(settings))
        self._quorum_port = ports[number][1]
        self._cluster_id = cluster_id

    def _controller_port(self) -> int:
        return self._quorum_port

    def _format_flags(self) -> list[str]:
        return [f"--cluster-id={self._cluster_id}"]


class CombinedCluster(BaseCluster):
    """Three of them on free ports, replicated as LocalCluster is; for tests of the controllers' quorum.

    Its ports are chosen here, so a folder serves one object only. One node that starts while both others are
    down cannot answer: begin() them together, then finish(). Raises BrokerError with a one-line text.
    """

    def __init__(self, data_dir: Path | str, settings: Mapping[str, str] | None = None) -> None:
        data_dir = Path(data_dir).absolute()
        if data_dir.exists() and any(data_dir.iterdir()):
            raise BrokerError(f"{data_dir} is not empty: a combined cluster begins with an empty folder")
        free = stable_ports(2 * NODES)
        ports = {number: (free[2 * number - 2], free[2 * number - 1]) for number in range(1, NODES + 1)}
        cluster_id, of_all = new_cluster_id(), replicated(NODES) | dict(settings or {})
        super().__init__(data_dir, [
            CombinedNode(data_dir / f"node-{n}", n, ports, cluster_id, of_all) for n in ports
        ])  # fmt: skip
