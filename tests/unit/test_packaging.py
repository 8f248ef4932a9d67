"""The promises of metadata, image, compose file, checked against each other."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from faust.stores import by_url as store_by_url
from faust.transport.drivers import TRANSPORTS
from yarl import URL

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
WORKERS = ["worker-1", "worker-2", "worker-3"]


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
    names = {normal(re.split(r"[ =<>\[]", line)[0]) for line in lines}
    assert set() == names - pins().keys()


def test_faust_finds_the_transport_by_its_url_scheme() -> None:
    """`exactly-once://host:port` names our transport, through the entry point of the installed package."""
    assert "exactly-once" == URL("exactly-once://127.0.0.1:9092").scheme
    transport = TRANSPORTS.by_url("exactly-once://127.0.0.1:9092")
    assert "streamsocial_billing.exactly_once.transport" == transport.__module__


def test_faust_finds_the_store_by_its_url_scheme() -> None:
    """`exactly-once://` names our table store, through the entry point of the installed package."""
    assert "streamsocial_billing.exactly_once.store" == store_by_url("exactly-once://").__module__


def test_compose_runs_the_broker_version_of_the_pom() -> None:
    """Tests, showcase, containers: the same Kafka."""
    pom = (ROOT / "broker" / "pom.xml").read_text(encoding="utf-8")
    version = re.findall(r"<kafka.version>(.+)</kafka.version>", pom)
    assert [SERVICES["kafka"]["image"]] == [f"apache/kafka:{each}" for each in version]


def test_compose_sets_what_the_local_broker_sets() -> None:
    """The container's Kafka has the same topic, retention and transaction settings as the local one."""
    local = {}
    for line in (ROOT / "broker" / "server.properties").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            local["KAFKA_" + name.upper().replace(".", "_")] = value
    place = r"LISTENER|_QUORUM_|LOG_DIRS|ROLES|NODE_ID"
    compose = {k: v for k, v in SERVICES["kafka"]["environment"].items() if not re.search(place, k)}
    assert compose == {name: local.get(name) for name in compose}


def test_compose_starts_one_gateway_with_three_workers() -> None:
    """The system of the README: Kafka, one gateway, three workers."""
    assert {"kafka", "gateway", *WORKERS} == set(SERVICES)


def test_compose_volumes_are_declared_and_not_shared() -> None:
    """Each service keeps its data in a volume of its own."""
    used = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    assert sorted(COMPOSE["volumes"]) == sorted(used)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_waits_for_a_healthy_broker_and_gateway(name: str) -> None:
    """A worker starts after both are healthy, and finds them under their service names and ports."""
    healthy = {"condition": "service_healthy"}
    assert {"kafka": healthy, "gateway": healthy} == SERVICES[name]["depends_on"]
    environment = SERVICES[name]["environment"]
    assert "CLIENT://" + URL(environment["BILLING_BROKER"]).authority == (
        SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
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
