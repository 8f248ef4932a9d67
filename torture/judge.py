"""Calls history, checker and report on a run that has come to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from streamsocial_billing.audit.checks import Problem
from streamsocial_billing.kafka.committed import CommittedLog
from torture.asking import again
from torture.checker import History, violations
from torture.figures import Figures, figures_of, lines
from torture.history import read_history
from torture.replicas import leading_folders
from torture.report import print_table, write
from torture.system import APP_ID, PARTITIONS, System
from torture.worker import ADDED_TOPIC

ANSWERS_WITHIN_S: Final = 120.0
"""Where reading fails for so long, that is the verdict."""


def judge(system: System, console: Console) -> Figures:
    """Read what the run left behind, check it, write the report; broker and gateway run, workers do not."""
    folder = system.folder
    system.kafka.settle()
    history = again(lambda: _history(system), ANSWERS_WITHIN_S)
    run = orjson.loads((folder / "run.json").read_bytes())
    faults, events = lines(folder / "faults.jsonl"), lines(folder / "events.jsonl")
    history.on_disk = [problem for problem in history.on_disk if not excused(problem, faults)]
    if system.is_control:
        history.on_disk = []  # its databases are not ours: they do not say how far they have come
    figures = figures_of(run, faults, events, history, list(violations(history)))
    write(folder, figures, faults, events)
    print_table(figures, console)
    return figures


def _history(system: System) -> History:
    history = read_history(
        system.settings, log=leading_folders(system.kafka.replicas), run=system.folder,
        datadirs=[worker.datadir for worker in system.workers.values() if worker.datadir.exists()],
        peak_bytes=_peaks(system),
    )  # fmt: skip
    _add_topic(history, system)
    return history


def excused(problem: Problem, faults: Iterable[Mapping[str, Any]]) -> bool:
    """True for a database that a fault has spoilt, or a SIGKILL amid its making, and nobody opened since.

    The worker that opens it starts it from empty. That some database holds everything is asked elsewhere.
    """
    if problem.kind != "damaged database":
        return False
    database = Path(problem.about)
    worker = database.parents[2].name
    if not (database / "CURRENT").exists():  # RocksDB writes it last, when it makes a database
        return True
    return any(
        fault["target"] == worker and (fault["kind"] == "disk_full" or _spoilt(fault) == database.name)
        for fault in faults
    )


def _spoilt(fault: Mapping[str, Any]) -> str | None:
    """The database in which this fault damaged a file."""
    file = fault.get("detail", {}).get("file") if fault["kind"] == "damage" else None
    return file.partition("/")[0] if file else None


def _peaks(system: System) -> dict[str, int]:
    """The largest resident set of each worker, from samples."""
    peaks: dict[str, int] = {}
    for event in lines(system.folder / "events.jsonl"):
        if event["what"] == "memory":
            for name in system.workers:
                peaks[name] = max(peaks.get(name, 0), event.get(name, 0) * 2**20)
    return peaks


def _add_topic(history: History, system: System) -> None:
    """The next release's topic: its offsets, its lag."""
    log, name = CommittedLog(system.settings), system.settings.topic(ADDED_TOPIC)
    ends = log.ends([(name, partition) for partition in range(PARTITIONS)])
    history.log_ends.update({place: end for place, (_, end) in ends.items()})
    if system.added:
        history.lag += [(*place, count) for place, count in log.lag(APP_ID, ends).items()]
