"""Watches workers from outside: what `/ready` says of each task, who ended, what their logs are full of."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from support.system import WorkerProcess
from support.web_client import get

LOOK_EVERY_S = 0.25
FOR_AN_OPERATOR = re.compile(r"task \d+ is stopped: .*|.*the worker stops: .*|.*kafka-consumer-groups.*")
"""What a worker says when it will not go on by itself."""
OUTCOME = re.compile(r" INFO outcome ")


class Seen(NamedTuple):
    """A task's state on a worker from `at` (time.monotonic()) on; `partition` -1: the worker itself."""

    at: float
    worker: str
    partition: int
    state: str
    why: str


class Watcher:
    """A thread that looks at every worker a few times a second; a worker that ended is started again.

    `seen` has each change of a task's state, `exits` the last lines of each worker that ended by itself.
    Hold `lock` and name the worker in `down` while it is ended on purpose.
    """

    def __init__(self, workers: Sequence[WorkerProcess]) -> None:
        self.seen: list[Seen] = []
        self.exits: list[str] = []
        self.down: set[str] = set()
        self.lock = threading.RLock()
        self._workers = workers
        self._last: dict[tuple[str, int], tuple[str, str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)

    def blocked(self) -> list[Seen]:
        """Each time that a task was blocked, whatever for."""
        return [one for one in list(self.seen) if one.state == "blocked"]

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            for worker in self._workers:
                self._see_that_it_runs(worker)
                with suppress(OSError, HTTPException, ValueError):
                    self._look(worker)

    def _see_that_it_runs(self, worker: WorkerProcess) -> None:
        with self.lock:
            if worker.name not in self.down and worker.starts and not worker.running:
                self.exits.append(f"{worker.name} ended with {worker.code}: {worker.tail()}")
                worker.start()

    def _look(self, worker: WorkerProcess) -> None:
        found = get(worker.web_port, "/ready").json()
        now = {task["partition"]: (task["state"], task["why"]) for task in found["tasks"]}
        now[-1] = ("ready" if found["ready"] else "not ready", "")
        for partition, said in now.items():
            if self._last.get((worker.name, partition)) != said:
                self.seen.append(Seen(time.monotonic(), worker.name, partition, *said))
        gone = [key for key in self._last if key[0] == worker.name and key[1] not in now]
        for key in gone:
            self.seen.append(Seen(time.monotonic(), *key, "gone", ""))
            del self._last[key]
        self._last.update({(worker.name, partition): said for partition, said in now.items()})


class LogCount(NamedTuple):
    """What a log has: lines, those of its busiest second, the most repeated ones (numbers left out).

    A payment's outcome has a line, however things are: it does not count.
    """

    lines: int
    busiest_second: int
    most: list[tuple[str, int]]


def count_lines(log: Path) -> LogCount:
    """How full a worker's log is."""
    lines = [line for line in lines_of(log) if not OUTCOME.search(line)]
    stamped = [line for line in lines if re.match(r"\d{4}-", line)]
    busiest = Counter(line[:19] for line in stamped)
    shapes = Counter(re.sub(r"\d+", "N", line[24:])[:160] for line in stamped)
    return LogCount(len(lines), max(busiest.values(), default=0), shapes.most_common(5))


def lines_of(log: Path) -> list[str]:
    """All that a worker has said, over all its starts."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def for_an_operator(log: Path) -> list[str]:
    """The lines by which a worker says that somebody has to act."""
    return [line for line in lines_of(log) if FOR_AN_OPERATOR.search(line)]
