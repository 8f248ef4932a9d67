"""What a guarantee runs on: one Kafka for all, a gateway, topics and workers of its own for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from faust_exactly_once import Cluster
from lab.guarantees import Guarantee
from lab.programs.till import ORDERS
from processes import ROOT
from processes.heard import HeardProcess
from processes.simulator import Simulator
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.settings import Settings

WORKERS: Final = ("w1", "w2", "w3")
"""The third one is in the group for a while only."""
PARTITIONS: Final = 4
SESSION_TIMEOUT_S: Final = 3
GATEWAY_DEADLINE_S: Final = 2.5
READY: Final = r"assigned \[\d|task \d+ runs"
STOP_WITHIN_S: Final = 20.0


class Worker(HeardProcess):
    """One worker process over its own data folder; an order file names the point where it has to end."""

    def __init__(
        self, name: str, guarantee: Guarantee, folder: Path, environ: Mapping[str, str], lock_fd: int
    ) -> None:
        self.datadir = folder / name
        self._orders = folder / f"{name}.orders"
        command = [sys.executable, "-m", guarantee.module]
        if guarantee.is_faust:
            command += [f"--datadir={self.datadir}", "worker", "--without-web", "--loglevel=info"]
        own = dict(environ) | {ORDERS: str(self._orders)}
        super().__init__(name, command, folder / f"{name}.log", own, lock_fd=lock_fd)

    def order(self, signal_name: str, point: str, times: int = 1) -> None:
        """It shall signal itself at its N-th passing of a point from now on."""
        new = self._orders.with_suffix(".new")
        new.write_text(f"{signal_name} {point} {times}")
        new.replace(self._orders)

    def withdraw(self) -> bool:
        """Take an order back; True if it had not been carried out."""
        waiting = self._orders.exists()
        self._orders.unlink(missing_ok=True)
        return waiting


class Stage:
    """The processes of one guarantee; the end of the `with` ends each of them.

    folder  of its own, empty
    broker  URL of the Kafka that all guarantees share, `kafka://host:port`
    """

    def __init__(
        self, guarantee: Guarantee, folder: Path, broker: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.guarantee = guarantee
        self.folder = folder
        self._broker = broker
        self._more = dict(more or {})
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> Stage:
        self.folder.mkdir(parents=True)
        self._lock_fd = os.open(self.folder / "lab.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        base = {key: value for key, value in os.environ.items() if not key.startswith("BILLING_")}
        base |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.gateway = Simulator(
            self.folder / "ledger.sqlite", base, log_file=self.folder / "gateway.log", lock_fd=self._lock_fd
        )
        try:
            self.gateway.start()
            chosen = {
                "BILLING_APP_ID": f"lab-{self.guarantee.key}", "BILLING_BROKER": self._broker,
                "BILLING_TOPIC_PREFIX": f"{self.guarantee.key}-", "BILLING_PARTITIONS": str(PARTITIONS),
                "BILLING_GATEWAY_URL": self.gateway.url,
                "BILLING_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
                "BILLING_GATEWAY_DEADLINE_S": str(GATEWAY_DEADLINE_S),
            } | self._more  # fmt: skip
            of_product = {key: value for key, value in chosen.items() if key.startswith("BILLING_")}
            self.settings = Settings.from_environment(of_product)
            create_topics(self.settings, Cluster(self.settings.client_config(), 15))
            for name in WORKERS:
                self.workers[name] = Worker(
                    name, self.guarantee, self.folder, base | chosen, self._lock_fd
                )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.kill()
        self.gateway.kill()
        os.close(self._lock_fd)
