"""The Kafka of docker-compose.yml, shown without Docker: real settings, and those of the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, NewTopic
from support.until import until

from broker import LOG_FLAGS
from broker.cluster import LocalCluster
from broker.jars import java_command, resolve_jars
from broker.ports import stable_ports

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
ENVIRONMENTS: dict[str, dict[str, str]] = {
    name: service["environment"]
    for name, service in COMPOSE["services"].items()
    if "KAFKA_NODE_ID" in service.get("environment", {})
}
BROKERS = [name for name, one in ENVIRONMENTS.items() if one["KAFKA_PROCESS_ROLES"] == "broker"]
PLACES = ("listener", "quorum", "log.dirs", "process.roles", "node.id")


def properties(environment: dict[str, str]) -> dict[str, str]:
    """The lines that the image makes of its environment: KAFKA_A_B is a.b, but for the JVM's options."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }


def settings_of(bootstrap: str, broker: int) -> dict[str, ConfigEntry]:
    """Every setting that a broker knows, as it applies it."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}, logger=None)
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    asked = admin.describe_configs([resource], request_timeout=60)
    found: dict[str, ConfigEntry] = asked[resource].result(60)
    return found


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_every_setting_of_compose_is_one_that_kafka_knows_with_the_value_of_the_tests(
    cluster: LocalCluster, name: str
) -> None:
    """A real broker of the same version is asked: Kafka ignores a misspelled name without a word."""
    known = settings_of(cluster.bootstrap, 1)
    wanted = properties(ENVIRONMENTS[name])
    assert set() == wanted.keys() - known.keys()
    elsewhere = {key: value for key, value in wanted.items() if not any(place in key for place in PLACES)}
    assert elsewhere == {key: known[key].value for key in elsewhere}


class Containers:
    """The nodes of compose as processes of this machine: only hosts, ports and folders are others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip(ENVIRONMENTS, stable_ports(len(ENVIRONMENTS)), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap(self) -> str:
        """All brokers."""
        return ",".join(f"127.0.0.1:{self._ports[name]}" for name in BROKERS)

    def start(self, name: str) -> None:
        """Format as the image does (no option but the cluster's id), then run."""
        folder = self._folder / name
        folder.mkdir()
        file = folder / "server.properties"
        lines = (properties(ENVIRONMENTS[name]) | {"log.dirs": str(folder / "log")}).items()
        file.write_text(self._on_loopback(name, "".join(f"{key}={value}\n" for key, value in lines)))
        jars, heap = resolve_jars(), ENVIRONMENTS[name]["KAFKA_HEAP_OPTS"].split()
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", ENVIRONMENTS[name]["CLUSTER_ID"]]
        format_command = [*java_command(jars, *LOG_FLAGS), *tool, "-c", str(file)]
        subprocess.run(format_command, check=True, capture_output=True, timeout=180)
        command = [*java_command(jars, *heap, *LOG_FLAGS), "kafka.Kafka", str(file)]
        with (folder / "node.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    def _on_loopback(self, name: str, text: str) -> str:
        for other, port in self._ports.items():
            text = text.replace(f"{other}:9092", f"127.0.0.1:{port}").replace(
                f"{other}:9093", f"127.0.0.1:{port}"
            )
        own = f"://127.0.0.1:{self._ports[name]}"
        return text.replace("://:9092", own).replace("://:9093", own)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    """All nodes up, ended afterwards."""
    nodes = Containers(tmp_path)
    with ExitStack() as ends:
        for name in ENVIRONMENTS:
            nodes.start(name)
            ends.callback(nodes.processes[name].wait, 60)
            ends.callback(nodes.processes[name].kill)
        yield nodes


def known_brokers(bootstrap: str) -> int:
    """How many a client is told of."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}, logger=None)
    try:
        return len(client.list_topics(timeout=10).brokers)
    except KafkaException:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kafka_of_compose_forms_one_cluster_that_outlives_a_broker(containers: Containers) -> None:
    """From the environment as it stands: three brokers, three copies; one is killed, commits go on."""
    until(lambda: 3 == known_brokers(containers.bootstrap), "three brokers", 180)
    admin = AdminClient({"bootstrap.servers": containers.bootstrap, "log_level": 0}, logger=None)
    admin.create_topics([NewTopic("t", 1)])["t"].result(60)

    def copies() -> int:
        there = admin.list_topics("t", timeout=30).topics["t"].partitions
        return len(there[0].isrs) if 0 in there else 0  # a moment after its making a topic has no partitions

    until(lambda: 3 == copies(), "three copies")
    leader = admin.list_topics("t", timeout=30).topics["t"].partitions[0].leader
    containers.processes[f"kafka-{leader}"].kill()
    producer = Producer(
        {"bootstrap.servers": containers.bootstrap, "transactional.id": "t", "acks": "all", "log_level": 0},
        logger=None,
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce("t", b"value", partition=0)
    producer.commit_transaction(60)
