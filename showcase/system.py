"""The whole system on one machine: Kafka, the gateway simulator, two workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import orjson
from confluent_kafka import KafkaException

from broker.choice import brokers_wanted
from faust_exactly_once import Cluster, KafkaUnavailable
from showcase.child import Child, free_port
from showcase.errors import ShowcaseFailed
from showcase.folder import Folder
from showcase.foreign import ForeignKafka
from showcase.kafka import OwnKafka
from showcase.keeping import Keeper, Part
from streamsocial_billing.settings import Settings, SettingsError

GATEWAY_PORT: Final = 8420
WEB_PORTS: Final = (6066, 6067)
KAFKA_ANSWERS_WITHIN_S: Final = 6.0
UP_WITHIN_S: Final = 120.0
ASK_EVERY_S: Final = 0.1
PORT_ATTEMPTS: Final = 3
TAKEN: Final = "cannot listen on"
"""What the gateway says about a port that somebody took after we had found it free."""


class Gateway(Child):
    """The gateway simulator with its ledger."""

    def __init__(self, port: int, environ: Mapping[str, str], folder: Folder) -> None:
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["gateway", f"--port={port}", f"--ledger={folder.path / 'gateway.sqlite'}"]
        super().__init__("gateway", arguments, environ, folder)

    def answers(self) -> bool:
        """True once it serves requests."""
        return self.running and ask(f"{self.url}/_stats", within_s=0.5) is not None


class Worker(Child):
    """A worker with a data folder, a web port, a last known state."""

    def __init__(
        self, number: int, port: int, environ: Mapping[str, str], folder: Folder,
        kafka_is_there: Callable[[], bool],
    ) -> None:  # fmt: skip
        name = f"worker-{number}"
        self.port = port
        self.datadir = folder.path / name
        self.assigned: list[int] = []
        self.state = "starting"
        self._kafka_is_there = kafka_is_there
        arguments = [f"--datadir={self.datadir}", "worker", f"--web-port={port}"]
        super().__init__(name, arguments, environ, folder)

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """True once its tasks run."""
        answer = ask(f"{self.url}/ready", within_s=0.5) if self.running else None
        return bool(answer and answer["ready"])

    def may_start(self) -> bool:
        """Without Kafka it would end at once."""
        return self._kafka_is_there()

    def look(self) -> None:
        """Ask it what it does; `state` is for people."""
        answer = ask(f"{self.url}/ready", within_s=0.5) if self.running else None
        self.assigned = answer["assigned"] if answer and answer["ready"] else []
        if not self.running:
            self.state = "not running"
        elif not answer:
            self.state = "starting"
        elif not answer["ready"]:
            self.state = "recovering"
        else:
            self.state = f"{len(self.assigned)} partitions" if self.assigned else "waiting for partitions"


class System:
    """Everything that runs; `start` it, `close` it in every case.

    `kafka`: host:port of another broker, None for `own_kafka`, of one broker or of three. `own` are settings
    that nobody may override; with `keep` a part that has been up and dies is started again. Raises
    ShowcaseFailed (also BrokerError, from the local broker) with a one-line text.
    """

    def __init__(
        self, folder: Folder, environ: Mapping[str, str], own: Mapping[str, str], say: Callable[[str], None],
        *, keep: bool = False,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.kafka = environ.get("KAFKA") or None
        own_kafka = OwnKafka(folder.path / "kafka", brokers_wanted(environ), say)
        self.own_kafka = None if self.kafka else own_kafka
        self.workers: list[Worker] = []
        self.gateway: Gateway | None = None
        self.keeper = Keeper(say) if keep else None
        self.foreign: ForeignKafka | None = None
        self._say = say
        self._environ = _without_foreign_kafka(environ, local=self.kafka is None) | dict(own)
        self._set("BILLING_BROKER", f"kafka://{self.kafka}" if self.kafka else "kafka://127.0.0.1:9092")
        self._set("BILLING_GATEWAY_URL", f"http://127.0.0.1:{GATEWAY_PORT}")
        self.settings = self._settings()

    @property
    def datadirs(self) -> list[Path]:
        """The workers' data folders."""
        return [worker.datadir for worker in self.workers]

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway simulator."""
        return self.settings.simulator_url

    def start(self) -> None:
        """Return when both workers are ready, with all partitions between them."""
        self._start_kafka()
        self._start_gateway()
        self._start_workers()
        if self.keeper is not None:
            self.keeper.all_up()

    def check_kafka(self) -> None:
        """Raise ShowcaseFailed unless the broker that was named answers."""
        try:
            Cluster(self.settings.client_config(), KAFKA_ANSWERS_WITHIN_S).id()
        except (KafkaUnavailable, KafkaException):
            where = self.settings.bootstrap
            text = f"no Kafka broker answers at {where}: start it or correct KAFKA=host:port"
            raise ShowcaseFailed(text) from None

    def watch(self) -> None:
        """Raise ShowcaseFailed if a process has ended that should run; one that is kept is started again."""
        if self.own_kafka is not None:
            self.own_kafka.mend()
        if self.keeper is not None:
            self.keeper.look()
            news = self.foreign.news() if self.foreign is not None else None
            if news is not None:
                self._say(news)
            return
        ended = self.own_kafka.ended() if self.own_kafka is not None else None
        if ended is not None:
            raise ShowcaseFailed(ended.why())
        for child in self._children():
            if not child.running:
                raise ShowcaseFailed(child.why())

    def look(self) -> None:
        """Ask every worker what it does."""
        for worker in self.workers:
            worker.look()

    def complete(self) -> bool:
        """True if every worker is ready and together they own each partition once, as of the last look."""
        owned = sorted(partition for worker in self.workers for partition in worker.assigned)
        everyone = all(worker.assigned for worker in self.workers)
        return everyone and owned == list(range(self.settings.partitions))

    def wait_complete(self) -> None:
        """Look until the system is complete, at most UP_WITHIN_S."""
        limit = time.monotonic() + UP_WITHIN_S
        while not self.complete():
            self.watch()
            if time.monotonic() > limit:
                states = ", ".join(f"{worker.name}: {worker.state}" for worker in self.workers)
                text = f"not ready after {UP_WITHIN_S:.0f} s: {states} (logs: {self.folder.logs})"
                raise ShowcaseFailed(text)
            time.sleep(ASK_EVERY_S)
            self.look()

    def child(self, name: str, *arguments: str) -> Child:
        """Another command of ours on this system, not yet started."""
        return Child(name, arguments, self._environ, self.folder)

    @property
    def environ(self) -> dict[str, str]:
        """What every process of the system gets."""
        return dict(self._environ)

    def stop_workers(self) -> dict[str, int]:
        """SIGTERM to all of them at once; their exit codes."""
        for worker in self.workers:
            worker.ask_to_stop()
        return {worker.name: worker.stopped() for worker in self.workers}

    def close(self) -> None:
        """End everything that was started, in order; what does not end in time is killed."""
        self.stop_workers()
        if self.gateway is not None:
            self.gateway.ask_to_stop()
            self.gateway.stopped()
        if self.foreign is not None:
            self.foreign.close()
        if self.own_kafka is not None:
            self.own_kafka.stop()

    def _start_kafka(self) -> None:
        if self.own_kafka is None:
            self.check_kafka()
            self._say(f"Kafka      {self.settings.bootstrap} (yours)")
            if self.keeper is not None:
                self.foreign = ForeignKafka(self.settings)
            return
        self.own_kafka.start()
        self._set("BILLING_BROKER", self.own_kafka.url)
        self.settings = self._settings()
        for part in self.own_kafka.parts:
            self._keep(part)

    def _start_gateway(self) -> None:
        port = free_port(GATEWAY_PORT)
        for last in (*[False] * (PORT_ATTEMPTS - 1), True):
            gateway = self.gateway = Gateway(port, self._environ, self.folder)
            gateway.start()
            if self._listens(gateway, last):
                break
            port = free_port()
        self._set("BILLING_GATEWAY_URL", gateway.url)
        self.settings = self._settings()
        self._say(f"gateway    {gateway.url} (pid {gateway.pid})")
        self._keep(gateway)

    def _listens(self, gateway: Gateway, last: bool) -> bool:
        """False where the port was taken meanwhile, unless this was the last attempt."""
        limit = time.monotonic() + UP_WITHIN_S
        while not gateway.said(f"{gateway.url} "):
            if not gateway.running:
                if not last and gateway.said(TAKEN):
                    return False
                raise ShowcaseFailed(gateway.why())
            if time.monotonic() > limit:
                text = f"the gateway does not listen after {UP_WITHIN_S:.0f} s (log: {gateway.log_file})"
                raise ShowcaseFailed(text)
            time.sleep(ASK_EVERY_S)
        return True

    def _start_workers(self) -> None:
        for number, port in enumerate(WEB_PORTS, 1):
            worker = Worker(number, free_port(port), self._environ, self.folder, self._kafka_is_there)
            self.workers.append(worker)
            worker.start()
            self._keep(worker)
        self.wait_complete()
        for worker in self.workers:
            self._say(f"{worker.name}   {worker.url} (pid {worker.pid}, {worker.state})")

    def _children(self) -> list[Child]:
        return [*self.workers, *([self.gateway] if self.gateway is not None else [])]

    def _keep(self, part: Part) -> None:
        if self.keeper is not None:
            self.keeper.add(part)

    def _kafka_is_there(self) -> bool:
        if self.own_kafka is not None:
            return self.own_kafka.is_there
        return self.foreign is None or self.foreign.is_there

    def _set(self, variable: str, value: str) -> None:
        self._environ[variable] = value

    def _settings(self) -> Settings:
        try:
            return Settings.from_environment(self._environ)
        except SettingsError as error:
            text = str(error).replace("BILLING_BROKER='kafka://", "KAFKA='") if self.kafka else str(error)
            raise ShowcaseFailed(text) from None


def _without_foreign_kafka(environ: Mapping[str, str], *, local: bool) -> dict[str, str]:
    """The environment, for our own broker without what was meant for another one (TLS, SASL, replication)."""
    meant_for_another = ("BILLING_KAFKA_", "BILLING_REPLICATION")
    return {key: value for key, value in environ.items() if not (local and key.startswith(meant_for_another))}


def ask(url: str, *, within_s: float, body: bytes | None = None) -> dict[str, Any] | None:
    """The JSON object that a process of ours answers, also beside a 503; None while it does not answer."""
    opener = build_opener(ProxyHandler({}))  # a proxy of the environment is not on the way to the loopback
    try:
        with opener.open(Request(url, data=body), timeout=within_s) as reply:  # noqa: S310 - our own loopback http
            answer = orjson.loads(reply.read())
    except HTTPError as error:
        try:
            answer = orjson.loads(error.read())
        except (OSError, HTTPException, ValueError):
            return None
    except (OSError, HTTPException, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
