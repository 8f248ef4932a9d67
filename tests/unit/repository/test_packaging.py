"""The promises of metadata, image, compose file, checked against each other."""

from __future__ import annotations

import base64
import configparser
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from faust.stores import by_url as store_by_url
from faust.transport.drivers import TRANSPORTS
from yarl import URL

import faust_exactly_once
from broker.cluster import BROKER_FLAGS, CONTROLLER_FLAGS, replicated
from streamsocial_billing.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
WORKERS = ["worker-1", "worker-2", "worker-3"]
BROKERS = ["kafka-1", "kafka-2", "kafka-3"]
KAFKA = ["controller", *BROKERS]
LAYER = tomllib.loads((ROOT / "packages/faust-exactly-once/pyproject.toml").read_text(encoding="utf-8"))
PLACE = re.compile("LISTENER|_QUORUM_|LOG_DIRS|ROLES|NODE_ID|HEAP_OPTS|CLUSTER_ID")
"""Settings that say where a node is, not how it behaves."""


def metadata() -> configparser.ConfigParser:
    """The content of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def pins() -> dict[str, str]:
    """Package name -> exact version of constraints.txt, names normalised (PEP 503)."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in found}


def normal(name: str) -> str:
    """A package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def instruction(name: str) -> str:
    """The last `name` instruction of the Dockerfile, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith(name + " ")][-1]


def test_no_index_accepts_a_package_that_contains_tables() -> None:
    """`tables` collides with PyTables where both are installed, so an upload is refused by classifier."""
    packages = metadata()["options.packages.find"]["include"].split()
    assert "tables*" in packages
    assert "Private :: Do Not Upload" in metadata()["metadata"]["classifiers"]


def test_every_requirement_is_pinned_exactly() -> None:
    """constraints.txt holds one exact version for each direct requirement."""
    wanted = metadata()["options"]["install_requires"] + metadata()["options.extras_require"]["test"]
    lines = [line for line in wanted.splitlines() if line and not line.startswith("#")]
    names = {normal(re.split(r"[ =<>\[]", line)[0]) for line in [*lines, *LAYER["project"]["dependencies"]]}
    assert {"faust-exactly-once"} == names - pins().keys(), "the layer is of this repository"


def test_the_product_asks_for_the_layer_that_is_here() -> None:
    """`make install` and the image install both; no index is asked for it."""
    wanted = metadata()["options"]["install_requires"]
    (asked,) = re.findall(r"^faust-exactly-once == (.+)\.\*$", wanted, re.MULTILINE)
    assert faust_exactly_once.__version__.startswith(f"{asked}.")
    assert "-e packages/faust-exactly-once -e" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "packages/faust-exactly-once ." in DOCKERFILE
    assert "Private :: Do Not Upload" in LAYER["project"]["classifiers"]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("streamsocial_billing.settings", ("Settings", "PAYMENTS")),
        ("streamsocial_billing.topics", ("create_topics",)),
        ("streamsocial_billing.events", ("PaymentEvent",)),
        ("streamsocial_billing.exactly_once", ("install", "settings", "Options", "batched")),
        ("streamsocial_billing.exactly_once.cluster", ("Cluster",)),
        ("streamsocial_billing.gateways.instant", ("InstantGateway",)),
    ],
)
def test_what_programs_outside_this_repository_import_is_there(path: str, names: tuple[str, ...]) -> None:
    """Rooms may be changed; these paths stay."""
    assert [] == [name for name in names if not hasattr(importlib.import_module(path), name)]


def test_the_package_offers_its_app_although_a_module_has_that_name(tmp_path: Path) -> None:
    """`faust -A streamsocial_billing` asks for it, perhaps twice."""
    asks = "import streamsocial_billing as b; import {0}; assert b.app is b.app; print(type(b.app).__name__)"
    said = [
        subprocess.run([sys.executable, "-c", asks.format(first)], cwd=tmp_path, check=True, text=True,
                       capture_output=True, timeout=60).stdout.strip()
        for first in ("streamsocial_billing", "streamsocial_billing.cli.main")
    ]  # fmt: skip
    assert ["App", "App"] == said


def test_faust_finds_the_transport_by_its_url_scheme() -> None:
    """`exactly-once://host:port` names our transport, through the entry point of the installed package."""
    assert "exactly-once" == URL("exactly-once://127.0.0.1:9092").scheme
    transport = TRANSPORTS.by_url("exactly-once://127.0.0.1:9092")
    assert "faust_exactly_once.transport" == transport.__module__


def test_faust_finds_the_store_by_its_url_scheme() -> None:
    """`exactly-once://` names our table store, through the entry point of the installed package."""
    assert "faust_exactly_once.store" == store_by_url("exactly-once://").__module__


def test_compose_runs_the_broker_version_of_the_pom() -> None:
    """Tests, showcase, containers: the same Kafka."""
    pom = (ROOT / "broker" / "pom.xml").read_text(encoding="utf-8")
    (version,) = re.findall(r"<kafka.version>(.+)</kafka.version>", pom)
    assert {f"apache/kafka:{version}"} == {SERVICES[name]["image"] for name in KAFKA}


def local_settings() -> dict[str, str]:
    """What each node of a local cluster is given, under the names of the image's environment variables."""
    lines = (ROOT / "broker" / "server.properties").read_text(encoding="utf-8").splitlines()
    found = dict(line.partition("=")[::2] for line in lines if line and not line.startswith("#"))
    return {"KAFKA_" + k.upper().replace(".", "_"): v for k, v in (found | replicated(3)).items()}


@pytest.mark.parametrize("name", KAFKA)
def test_compose_sets_what_the_local_cluster_sets(name: str) -> None:
    """A container's Kafka has the replication, topic, retention, transaction settings of the local ones."""
    environment = SERVICES[name]["environment"].items()
    compose = {key: value for key, value in environment if not PLACE.search(key)}
    local = {key: value for key, value in local_settings().items() if not PLACE.search(key)}
    for_tests_alone = "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS"
    del local[for_tests_alone]
    assert local == compose


@pytest.mark.parametrize(
    ("name", "flags"), [("controller", CONTROLLER_FLAGS), *((name, BROKER_FLAGS) for name in BROKERS)]
)
def test_compose_gives_the_heaps_of_the_local_cluster(name: str, flags: tuple[str, ...]) -> None:
    """So that all fit into the 2 GiB that the local ones were measured with."""
    heap = [flag for flag in flags if flag.startswith("-Xm")]
    assert heap == SERVICES[name]["environment"]["KAFKA_HEAP_OPTS"].split()


def test_compose_names_one_controller_and_three_brokers_of_one_cluster() -> None:
    """Ids are their own, the cluster's id is one, each broker is found where it says it is."""
    environments = [SERVICES[name]["environment"] for name in KAFKA]
    assert ["100", "1", "2", "3"] == [one["KAFKA_NODE_ID"] for one in environments]
    assert ["controller", *["broker"] * 3] == [one["KAFKA_PROCESS_ROLES"] for one in environments]
    (cluster_id,) = {one["CLUSTER_ID"] for one in environments}
    assert 16 == len(base64.urlsafe_b64decode(cluster_id + "=="))
    assert {"100@controller:9093"} == {one["KAFKA_CONTROLLER_QUORUM_VOTERS"] for one in environments}
    assert "CONTROLLER://:9093" == environments[0]["KAFKA_LISTENERS"]
    # the image refuses to start a controller that advertises listeners
    assert "KAFKA_ADVERTISED_LISTENERS" not in environments[0]
    for name in BROKERS:
        assert f"CLIENT://{name}:9092" == SERVICES[name]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
        assert "CLIENT://:9092" == SERVICES[name]["environment"]["KAFKA_LISTENERS"]


@pytest.mark.parametrize("name", KAFKA)
def test_a_kafka_node_is_checked_at_the_port_that_it_listens_on(name: str) -> None:
    """Without a Java process for each look; it is started again when it dies, and waits for nobody."""
    port = 9093 if name == "controller" else 9092
    assert f"/dev/tcp/{name}/{port}" in SERVICES[name]["healthcheck"]["test"][-1]
    assert ("unless-stopped", None) == (SERVICES[name]["restart"], SERVICES[name].get("depends_on"))


def test_compose_starts_one_gateway_with_three_workers() -> None:
    """The system of the README: Kafka, one gateway, three workers."""
    assert {*KAFKA, "gateway", *WORKERS} == set(SERVICES)


def test_compose_volumes_are_declared_and_not_shared() -> None:
    """Each service keeps its data in a volume of its own."""
    used = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    assert sorted(COMPOSE["volumes"]) == sorted(used)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_waits_for_healthy_brokers_and_gateway(name: str) -> None:
    """A worker starts after all are healthy, and finds them under their service names and ports."""
    healthy = {"condition": "service_healthy"}
    assert {each: healthy for each in (*BROKERS, "gateway")} == SERVICES[name]["depends_on"]
    environment = SERVICES[name]["environment"]
    settings = Settings.from_environment(environment)
    assert [f"{each}:9092" for each in BROKERS] == settings.bootstrap.split(",")
    assert Settings().replication == settings.replication  # the brokers', above
    port = URL(environment["BILLING_GATEWAY_URL"]).port
    assert f"--port={port}" in SERVICES["gateway"]["command"]
    assert f":{port}/health" in SERVICES["gateway"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_announces_a_name_that_the_others_resolve(name: str) -> None:
    """Table look-ups are routed between workers by the announced host name, here the service name."""
    command = SERVICES[name]["command"]
    assert f"--web-host={name}" in command
    image_command = json.loads(instruction("CMD").removeprefix("CMD "))
    assert image_command == [word for word in command if not word.startswith("--web-host")]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_published_ports_are_loopback_only(name: str) -> None:
    """Nothing of the compose system is reachable from other machines."""
    assert [] == [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")]


def test_the_image_does_not_run_as_root() -> None:
    """The image's user is a number (so that Kubernetes can check runAsNonRoot), not 0."""
    assert int(instruction("USER").split()[1]) > 0


def test_the_image_installs_pinned_versions() -> None:
    """pip gets the constraints file."""
    installs = re.findall(r"pip install.*", DOCKERFILE)
    assert installs != []
    assert installs == [line for line in installs if "-c constraints.txt" in line]


def test_the_image_has_a_health_check_on_the_port_of_its_command() -> None:
    """HEALTHCHECK asks /health on the port that the default command opens on all interfaces."""
    port = instruction("EXPOSE").split()[1]
    assert f"http://127.0.0.1:{port}/health" in instruction("HEALTHCHECK")
    assert f"--web-port={port}" in instruction("CMD")
    assert "--web-bind=0.0.0.0" in instruction("CMD")


def test_the_image_gets_every_file_that_it_copies() -> None:
    """.dockerignore lets through what the Dockerfile copies."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        word
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert allowed == copied
