"""Faults that have a worker's process: killed, frozen, stopped, added, removed, deployed, badly timed."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from torture.schedule import Planned
from torture.system import System
from torture.workers import RUNS, Worker

BACK_WITHIN_S: Final = 12.0
"""A worker that shall run again is waited for so long, not longer: other faults may keep it away."""
REACHED_WITHIN_S: Final = 8.0
"""How long a named point may take to be reached before the signal is sent as it comes."""
CLOCK_AHEAD_S: Final = 7200.0

Detail = dict[str, Any]


@contextmanager
def held(system: System, fault: Planned) -> Iterator[Worker]:
    """The fault's worker, running, for this fault alone; afterwards it runs again if that is wanted."""
    worker = system.workers[fault.target]
    with worker.lock:
        if not worker.running:
            worker.start()
            worker.wait_runs(BACK_WITHIN_S)
        try:
            yield worker
        finally:
            worker.withdraw()
            if worker.frozen:
                worker.wake()
            worker.settle()


def back(worker: Worker) -> Detail:
    """Let it run again; how long it took to run a task, None if it runs none yet."""
    began = time.monotonic()
    worker.start()
    ran = worker.wait_runs(BACK_WITHIN_S)
    return {"back_s": round(time.monotonic() - began, 2) if ran else None}


def kill(system: System, fault: Planned) -> Detail:
    """SIGKILL at no particular moment."""
    with held(system, fault) as worker:
        worker.kill()
        time.sleep(fault.length_s)
        return back(worker)


def kill_at_point(system: System, fault: Planned) -> Detail:
    """SIGKILL at a named point of a commit, or of a recovery from empty."""
    point = fault.args["point"]
    with held(system, fault) as worker:
        if point == "during_recovery":
            worker.kill()
            shutil.rmtree(worker.tables, ignore_errors=True)
            worker.start()
        worker.order(signal.SIGKILL, point, 1 if point == "during_recovery" else fault.args["times"])
        reached = worker.wait(REACHED_WITHIN_S) and worker.code == -signal.SIGKILL
        if worker.running:
            worker.withdraw()
            worker.kill()
        time.sleep(fault.length_s)
        return {"point": point, "reached": reached, **back(worker)}


def freeze(system: System, fault: Planned) -> Detail:
    """SIGSTOP beyond the session's end, then SIGCONT while the new owner works."""
    with held(system, fault) as worker:
        worker.freeze()
        time.sleep(fault.length_s)
        worker.wake()
        return {"alive": worker.running}


def freeze_at_point(system: System, fault: Planned) -> Detail:
    """The same amid a commit."""
    point = fault.args["point"]
    with held(system, fault) as worker:
        worker.order(signal.SIGSTOP, point, fault.args["times"])
        reached = worker.wait_line(f"SIGSTOP at {point}", REACHED_WITHIN_S) is not None
        worker.withdraw()
        worker.freeze()
        time.sleep(fault.length_s)
        worker.wake()
        return {"point": point, "reached": reached, "alive": worker.running}


def stop(system: System, fault: Planned) -> Detail:
    """SIGTERM, then start."""
    with held(system, fault) as worker:
        detail = stopped(worker)
        time.sleep(fault.length_s)
        return detail | back(worker)


def stopped(worker: Worker) -> Detail:
    """Stop a worker in order; how long that took, how it ended."""
    began = time.monotonic()
    in_time = worker.stop()
    return {"stop_s": round(time.monotonic() - began, 2), "exit": worker.code if in_time else "killed"}


def add(system: System, fault: Planned) -> Detail:
    """One worker more, for a while; other faults may hit it meanwhile."""
    worker = system.workers[fault.target]
    worker.wanted = True
    with worker.lock:
        detail = back(worker)
    time.sleep(fault.length_s)
    worker.wanted = False
    with worker.lock:
        return detail | stopped(worker)


def remove(system: System, fault: Planned) -> Detail:
    """One worker less, for a while."""
    with held(system, fault) as worker:
        worker.wanted = False
        detail = stopped(worker)
        time.sleep(fault.length_s)
        worker.wanted = True
        return detail | back(worker)


def clock(system: System, fault: Planned) -> Detail:
    """The worker comes back with a clock two hours ahead; the broker refuses what it sends."""
    with held(system, fault) as worker:
        worker.stop()
        worker.start(clock_ahead_s=CLOCK_AHEAD_S)
        worker.wait_line(RUNS, BACK_WITHIN_S)
        ended = worker.wait(fault.length_s)
        refused = worker.count("the worker stops: a record")
        worker.stop()
        return {"ended_itself": ended, "refused": refused, **back(worker)}


def deploy(system: System, fault: Planned) -> Detail:
    """Worker by worker another release: one that reads a topic more, or back to the one before."""
    with system.locks["all"]:
        to = not any(worker.added_topic for worker in system.workers.values())
        system.append_added()
        detail: Detail = {"added_topic": to, "stops": []}
        for name in fault.args["order"]:
            worker = system.workers[name]
            with worker.lock:
                worker.added_topic = to
                if worker.running:
                    detail["stops"].append(stopped(worker)["stop_s"])
                    back(worker)
            time.sleep(fault.length_s / len(system.workers))
        return detail
