"""Watches a run from outside: what is answered, what the workers say, how much memory they take."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final

import orjson

from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem, Place
from streamsocial_billing.settings import DEAD_LETTERS, RESULTS
from torture.markers import Repair
from torture.system import System
from torture.workers import Worker

WRITE_EVERY_S: Final = 0.5
MEMORY_EVERY_S: Final = 3.0
REPAIR_EVERY_S: Final = 3.0
SAID: Final[Mapping[str, re.Pattern[str]]] = {
    "rebalance": re.compile(
        r"rebalance (?P<number>\d+): generation (?P<generation>-?\d+), tasks (?P<tasks>.*)"
    ),
    "runs": re.compile(
        r"task (?P<partition>\d+) runs: fenced in (?P<fence_ms>\d+) ms, "
        r"recovered (?P<records>\d+) records in (?P<recover_ms>\d+) ms"
    ),
    "incarnation ends": re.compile(r"task (?P<partition>\d+) starts again after (?P<why>.*)"),
    "worker stops": re.compile(r"task (?P<partition>\d+): the worker stops: (?P<why>.*)"),
    "task is stopped": re.compile(r"task (?P<partition>\d+) is stopped: (?P<why>.*)"),
    "rebuilt": re.compile(r"table (?P<table>\w+).* is rebuilt from empty: (?P<why>.*)"),
    "traceback": re.compile(r"(?P<why>Traceback \(most recent call last\))"),
}


class Watch:
    """Fills events.jsonl as long as it is open; for a `with`."""

    def __init__(self, system: System) -> None:
        self.results = 0
        self.dead = 0
        self.markers = 0
        self._system = system
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(RESULTS,), daemon=True),
            threading.Thread(target=self._follow, args=(DEAD_LETTERS,), daemon=True),
            threading.Thread(target=self._note, daemon=True),
            threading.Thread(target=self._repair, daemon=True),
        ]
        for worker in system.workers.values():
            worker.told = Teller(system, worker.name)

    @property
    def answered(self) -> int:
        """Events with a first result or a dead letter, in committed records."""
        return self.results + self.dead

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _follow(self, topic: str) -> None:
        """Read on from the last record, however often Kafka is away."""
        read_to: dict[Place, int] = {}
        while not self._stop.is_set():
            try:
                self._count(topic, read_to)
            except KafkaProblem as error:
                self._system.saw("not readable", why=str(error))
                self._stop.wait(WRITE_EVERY_S)

    def _count(self, topic: str, read_to: dict[Place, int]) -> None:
        log, name = CommittedLog(self._system.settings), self._system.settings.topic(topic)
        for message in log.follow(name, read_to):
            if self._stop.is_set():
                return
            if message is None:
                continue
            read_to[name, message.partition() or 0] = (message.offset() or 0) + 1
            if topic == DEAD_LETTERS:
                self.dead += 1
            else:
                self.results += not orjson.loads(message.value() or b"{}").get("resolves")

    def _repair(self) -> None:
        """What Kafka forgets, an operator has to write."""
        kafka = self._system.kafka
        repair = Repair.of(kafka.replicas)
        while not self._stop.wait(REPAIR_EVERY_S):
            if kafka.count == 1:
                self._look(repair)
            elif self._system.locks["broker"].acquire(timeout=REPAIR_EVERY_S):
                # while one of several brokers is away, what another one says of the leaders may be of before
                try:
                    self._look(repair)
                finally:
                    self._system.locks["broker"].release()

    def _look(self, repair: Repair) -> None:
        try:
            for marker in repair.run_once():
                self.markers += 1
                self._system.saw("marker written", marker=list(marker), missing=str(marker))
        except OSError as error:
            self._system.saw("marker not written", why=str(error))

    def _note(self) -> None:
        memory_at = 0.0
        while not self._stop.wait(WRITE_EVERY_S):
            self._system.saw("answered", count=self.answered, results=self.results, dead=self.dead)
            if time.monotonic() > memory_at:
                memory_at = time.monotonic() + MEMORY_EVERY_S
                running = [worker for worker in self._system.workers.values() if worker.running]
                self._system.saw("memory", **{worker.name: worker.memory_mb() for worker in running})


class Teller:
    """Puts what a worker says about its tasks into events.jsonl."""

    def __init__(self, system: System, name: str) -> None:
        self._system = system
        self._name = name

    def __call__(self, line: str) -> None:
        """Called for each line of the worker's output."""
        for what, pattern in SAID.items():
            found = pattern.search(line)
            if found is not None:
                self._system.saw(what, worker=self._name, **found.groupdict())
                return


def supervise(system: System, worker: Worker) -> None:
    """Start again what ended by itself, as any supervisor would, unless a fault has the worker."""
    if not worker.missing() or not worker.lock.acquire(timeout=REPAIR_EVERY_S):
        return
    try:
        if worker.missing():  # no fault has it, so it ended by itself
            system.exits += 1
            system.saw("exit", worker=worker.name, code=worker.code, why=worker.tail(2))
            worker.start()
    finally:
        worker.lock.release()
