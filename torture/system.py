"""Everything that runs under torture: broker behind proxies, gateway, workers, generator."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

import tables
from faust_exactly_once.cluster import Cluster
from processes import ROOT
from processes.simulator import Simulator
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.settings import Settings
from torture.asking import again
from torture.cluster import ProxiedBroker
from torture.three import ThreeBrokers
from torture.worker import ADDED_TOPIC
from torture.workers import Intake, Worker

WORKERS: Final = ("w1", "w2", "w3")
"""The last one is there only now and then."""
INTAKE: Final = "intake"
PARTITIONS: Final = 4
SESSION_TIMEOUT_S: Final = 2
GATEWAY_DEADLINE_S: Final = 1.2
OPTIONS: Final[Mapping[str, Any]] = {"transaction_timeout_ms": 3_500, "request_timeout_s": 3.0}
"""Of the exactly-once layer: short enough for a fault to outlast them."""
TOPICS_WITHIN_S: Final = 60.0
ADDED_EVENTS: Final = 40
LOCK_NAME: Final = "torture.lock"
APP_ID: Final = "torture"
PREFIX: Final = "t-"


class Journal:
    """A file of JSON lines, written from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, **line: Any) -> None:
        """One line, there at once."""
        with self._lock:
            self._file.write(json.dumps(line, default=str) + "\n")
            self._file.flush()

    def close(self) -> None:
        """No more lines."""
        self._file.close()


class System:
    """All processes of a run over one folder; the end of the `with` ends every one of them.

    `module`: the script of the workers. `mutant`: the defect that they get, none by default. `brokers`: 1 or
    3; with three the intake is behind proxies, too.
    """

    def __init__(
        self, folder: Path, seed: int, payments: int, *, module: str = "torture.worker", mutant: str = "",
        brokers: int = 1,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.seed = seed
        self.payments = payments
        self.kafka: ProxiedBroker | ThreeBrokers = (
            ProxiedBroker(folder / "kafka", WORKERS)
            if brokers == 1
            else ThreeBrokers(folder / "kafka", [*WORKERS, INTAKE])
        )
        self.workers: dict[str, Worker] = {}
        self.exits = 0
        self.added = False
        links = [f"link:{name}" for name in WORKERS]
        self.locks = {name: threading.Lock() for name in ("all", "broker", "topics", "gateway", *links)}
        self.is_control = module != "torture.worker"
        self._module = module
        self._mutant = mutant

    def __enter__(self) -> System:
        fresh(self.folder)
        self._lock_fd = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.events = Journal(self.folder / "events.jsonl")
        self.fault_log = Journal(self.folder / "faults.jsonl")
        self.kafka.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children():
            child.kill()
        self.kafka.__exit__(None, None, None)
        self.events.close()
        self.fault_log.close()
        os.close(self._lock_fd)

    @property
    def residents(self) -> Sequence[Worker]:
        """The workers that are always wanted."""
        return [self.workers[name] for name in WORKERS[:-1]]

    def saw(self, what: str, **about: Any) -> None:
        """One line into events.jsonl."""
        self.events.write(at=time.time(), what=what, **about)

    def cluster(self, timeout_s: float = 10.0) -> Cluster:
        """A client past every proxy."""
        return Cluster(self.settings.client_config(), timeout_s)

    def environment(self, broker_url: str) -> dict[str, str]:
        """What a process of ours gets that reaches the broker there."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BILLING_")}
        return inherited | self._settings(broker_url) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def behind_added(self) -> int:
        """How many offsets of the added topic are not handled; none as long as it is empty."""
        log, name = CommittedLog(self.settings), self.settings.topic(ADDED_TOPIC)
        ends = log.ends([(name, partition) for partition in range(PARTITIONS)])
        return sum(log.lag(APP_ID, ends).values())

    def append_added(self) -> None:
        """Some events for the next release."""
        self.added = True
        producer = Producer(self.settings.client_config() | {"partitioner": "murmur2_random", "log_level": 0})
        for number in range(ADDED_EVENTS):
            producer.produce(self.settings.topic(ADDED_TOPIC), b"{}", key=b"user-%d" % number)
        producer.flush(5)  # what the broker does not take now is nobody's loss
        producer.purge()

    def write_run(self, **more: Any) -> None:
        """run.json: what a reader of the folder has to know."""
        about = {
            "seed": self.seed, "payments": self.payments, "app_id": APP_ID, "prefix": PREFIX,
            "bootstrap": self.kafka.bootstrap, "partitions": PARTITIONS, "workers": list(WORKERS),
            "session_timeout_s": SESSION_TIMEOUT_S, "options": dict(OPTIONS), "module": self._module,
            "mutant": self._mutant, "settings": self._settings(self.kafka.own_url),
            "brokers": self.kafka.count, **more,
        }  # fmt: skip
        (self.folder / "run.json").write_text(json.dumps(about, indent=1, default=str))

    def _start(self) -> None:
        self.gateway = Simulator(
            self.folder / "ledger.sqlite", log_file=self.folder / "gateway.log", lock_fd=self._lock_fd
        )
        self.gateway.start()
        self.settings = Settings.from_environment(self._settings(self.kafka.own_url))
        again(lambda: create_topics(self.settings, self.cluster()), TOPICS_WITHIN_S)
        more = [self.settings.topic(ADDED_TOPIC)]
        if self.is_control:  # it has no use for the product's other tables; a reader asks for them all
            others = [table for table in tables.ALL if table not in ("payments", "charges")]
            more += [self.settings.changelog(table) for table in others]
        new = [NewTopic(name, PARTITIONS, self.kafka.count) for name in more]
        again(lambda: self.cluster().create(new), TOPICS_WITHIN_S)
        for name in WORKERS:
            environ = self.environment(self.kafka.url(name))
            self.workers[name] = Worker(
                name=name, folder=self.folder, environ=environ, options=OPTIONS, lock_fd=self._lock_fd,
                module=self._module, mutant=self._mutant,
            )  # fmt: skip
        environ = self.environment(self.kafka.own_url if self.kafka.count == 1 else self.kafka.url(INTAKE))
        self.intake = Intake(self.folder, environ, self._lock_fd, self.seed, self.payments)

    def _settings(self, broker_url: str) -> dict[str, str]:
        chosen = {
            "BILLING_APP_ID": APP_ID, "BILLING_TOPIC_PREFIX": PREFIX, "BILLING_BROKER": broker_url,
            "BILLING_PARTITIONS": PARTITIONS, "BILLING_REPLICATION": self.kafka.count,
            "BILLING_GATEWAY_URL": self.gateway.url,
            "BILLING_SESSION_TIMEOUT_S": SESSION_TIMEOUT_S, "BILLING_GATEWAY_DEADLINE_S": GATEWAY_DEADLINE_S,
        }  # fmt: skip
        return {name: str(value) for name, value in chosen.items()}

    def _children(self) -> list[Any]:
        made = [getattr(self, name) for name in ("intake", "gateway") if hasattr(self, name)]
        return [*self.workers.values(), *made]


def fresh(folder: Path) -> None:
    """Empty the run folder; raises FileExistsError for one that holds something else."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / LOCK_NAME).exists():
            raise FileExistsError(f"{folder} holds something else: choose an empty folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
