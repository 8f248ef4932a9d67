"""How each peer is started, and what it is asked to work on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.comparison.bring import SOURCES, java_peer, python_of_peers
from benchmarks.comparison.plan import OURS, Configuration
from processes.process import Process
from streamsocial_billing.settings import METRICS as PAYMENT_METRICS
from streamsocial_billing.settings import PAYMENTS, RESULTS, Settings

PARTITIONS: Final = 4
COMMIT_MS: Final = 100
STOPS_WITHIN_S: Final = 20.0
QUIET_JAVA: Final = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",)
OPENED_TO_FLINK: Final = (
    "lang", "lang.reflect", "net", "nio", "text", "time", "util", "util.concurrent", "util.concurrent.atomic",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One run's own topics, group, folder. `suffix` is in the name of each of its topics."""

    configuration: Configuration
    bootstrap: str
    suffix: str
    state: Path

    def topic(self, name: str) -> str:
        """The name of one of the three topics in this run."""
        ours = self.configuration.peer == OURS
        return f"{self.suffix}.{name}" if ours else f"{name}-{self.suffix}"

    @property
    def group(self) -> str:
        """Consumer group, application id."""
        return f"peer-{self.configuration.peer}-{self.suffix}"

    def settings(self) -> Settings:
        """Our own settings of this run, without what the configuration adds."""
        return Settings.from_environment(self._ours())

    def environment(self, number: int) -> dict[str, str]:
        """Of the process with this number, without anything of ours that was set outside."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
        own = self._ours() if self.configuration.peer == OURS else self._theirs(number)
        return inherited | own | dict(self.configuration.environment)

    def _ours(self) -> dict[str, str]:
        return {
            "BILLING_APP_ID": self.group, "BILLING_BROKER": f"kafka://{self.bootstrap}",
            "BILLING_TOPIC_PREFIX": f"{self.suffix}.", "BILLING_PARTITIONS": str(PARTITIONS),
            "BILLING_COMMIT_INTERVAL_MS": str(COMMIT_MS),
        }  # fmt: skip

    def _theirs(self, number: int) -> dict[str, str]:
        one = self.configuration
        return {
            "BOOTSTRAP": self.bootstrap, "GATEWAY_MS": str(one.gateway_ms), "COMMIT_MS": str(COMMIT_MS),
            "THREADS": str(one.width), "PAYMENTS_TOPIC": self.topic(PAYMENTS),
            "RESULTS_TOPIC": self.topic(RESULTS), "METRICS_TOPIC": self.topic(PAYMENT_METRICS),
            "GROUP": self.group, "STATE_DIR": str(self.state), "PROC": str(number),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` of its process with this number. `widens`: by more processes, not by threads of one.

    `changelog`: how the name of its changelog topic ends, None if it has none that can be read.
    """

    command: Callable[[Job, int], Sequence[str]]
    widens: bool
    changelog: str | None


def _ours(job: Job, number: int) -> list[str]:
    module = ["-m", "benchmarks.worker", str(job.configuration.gateway_ms)]
    return [sys.executable, *module, f"--datadir={job.state / f'worker-{number}'}", "worker", "--without-web"]


def _java(name: str, *flags: str) -> Callable[[Job, int], list[str]]:
    def command(job: Job, number: int) -> list[str]:
        there = java_peer(name)
        return [there.java, "-Xms256m", "-Xmx1g", *flags, *QUIET_JAVA, "-cp", there.class_path, there.main]

    return command


def _python(name: str, *words: str) -> Callable[[Job, int], list[str]]:
    def command(job: Job, number: int) -> list[str]:
        return [str(python_of_peers()), str(SOURCES / name / "app.py"), *words]

    return command


FLINK_FLAGS: Final = (
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED_TO_FLINK),
    "-Dorg.slf4j.simpleLogger.log.org.apache.flink.metrics.MetricGroup=error",
)
PEERS: Final[Mapping[str, Peer]] = {
    OURS: Peer(_ours, widens=True, changelog="charges-changelog"),
    "kafka-streams": Peer(_java("kafka-streams"), widens=False, changelog="changelog"),
    "flink": Peer(_java("flink", *FLINK_FLAGS), widens=False, changelog=None),
    "quix": Peer(_python("quix"), widens=True, changelog=None),
    "raw-confluent": Peer(_python("raw-confluent"), widens=True, changelog="changelog"),
    "parallel-consumer": Peer(
        _java("parallel-consumer", "-Xss256k"), widens=True, changelog="changelog"
    ),
    "faust-stock": Peer(
        _python("faust-stock", "worker", "-l", "warn", "--without-web"), widens=True, changelog="changelog"
    ),
}


def processes(job: Job, log: Path) -> list[Process]:
    """The processes of a run, not yet started; brings the peer first where it is not there."""
    peer = PEERS[job.configuration.peer]
    count = job.configuration.width if peer.widens else 1
    return [
        Process(
            f"{job.configuration.peer} {number}", peer.command(job, number),
            log.with_suffix(f".{number}.log"), job.environment(number),
        )
        for number in range(count)
    ]  # fmt: skip
