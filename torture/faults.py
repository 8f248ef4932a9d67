"""Each kind of fault as an action on the running system; what really happened is its return value.

An action begins, lasts, heals what it did. It holds the locks of what it touches, so faults on different
targets overlap, two on one target come one after the other. FaultFailed means that the *product* did not do
what its contract says under this fault.
"""

from __future__ import annotations

import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from torture.group import FaultFailed, expire_offsets
from torture.proxy import Link
from torture.schedule import KINDS, Planned
from torture.system import System
from torture.workers import RUNS, Worker

BACK_WITHIN_S: Final = 12.0
"""A worker that shall run again is waited for so long, not longer: other faults may keep it away."""
REACHED_WITHIN_S: Final = 8.0
"""How long a named point may take to be reached before the signal is sent as it comes."""
CLOCK_AHEAD_S: Final = 7200.0
TOO_SMALL_BYTES: Final = 90

Detail = dict[str, Any]


def act(system: System, fault: Planned) -> Detail:
    """Let the fault happen, from its beginning to its end."""
    return ACTIONS[fault.kind](system, fault)


# -- processes


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


# -- disks


def wipe(system: System, fault: Planned) -> Detail:
    """Its databases are deleted while it is down."""
    with held(system, fault) as worker:
        worker.kill()
        count = len(databases(worker))
        shutil.rmtree(worker.tables, ignore_errors=True)
        time.sleep(fault.length_s)
        return {"databases": count, **back(worker)}


def old_copy(system: System, fault: Planned) -> Detail:
    """An earlier copy of its databases is put back while it is down."""
    with held(system, fault) as worker:
        worker.kill()
        copy = system.folder / f"{worker.name}.copy"
        shutil.rmtree(copy, ignore_errors=True)
        if worker.tables.exists():
            shutil.copytree(worker.tables, copy)
        worker.start()
        worker.wait_runs(BACK_WITHIN_S)
        time.sleep(fault.length_s)
        worker.kill()
        shutil.rmtree(worker.tables, ignore_errors=True)
        if copy.exists():
            copy.rename(worker.tables)
        return {"databases": len(databases(worker)), **back(worker)}


def damage(system: System, fault: Planned) -> Detail:
    """One file of a database is cut, changed or removed while the worker is down."""
    dice = random.Random(fault.args["seed"])  # noqa: S311 - repeatable
    with held(system, fault) as worker:
        worker.kill()
        found = sorted(path for one in databases(worker) for path in one.iterdir() if path.stat().st_size)
        found = [path for path in found if path.name != "LOCK" and not path.name.startswith("LOG")]
        if not found:
            return {"file": None, **back(worker)}
        path = dice.choice(found)
        size = path.stat().st_size
        spoil(path, fault.args["how"], dice)
        time.sleep(fault.length_s)
        detail = {"file": f"{path.parent.name}/{path.name}", "bytes": size, "how": fault.args["how"]}
        return detail | back(worker) | {"rebuilt": worker.count("rebuilt from empty")}


def spoil(path: Path, how: str, dice: random.Random) -> None:
    """Cut a file in two, change one byte, or remove it."""
    data = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: dice.randrange(len(data))])
    else:
        place = dice.randrange(len(data))
        data[place] ^= 1 << dice.randrange(8)
        path.write_bytes(data)


def databases(worker: Worker) -> list[Path]:
    """The databases of a worker."""
    return sorted(worker.tables.glob("*.db"))


def disk_full(system: System, fault: Planned) -> Detail:
    """No file of the worker may grow (RLIMIT_FSIZE, so every write fails with EFBIG), then it may again."""
    with held(system, fault) as worker:
        pid = worker.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        time.sleep(fault.length_s)
        ended = not worker.running
        if not ended:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        refused = worker.count("RocksDB refused a write|File too large")
        return {"ended_itself": ended, "refused_lines": refused, **back(worker)}


# -- records


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


def refused(system: System, fault: Planned) -> Detail:
    """The broker takes no record of a topic that is larger than next to nothing."""
    name = system.settings.topic(fault.args["topic"])
    with system.locks["topics"]:
        exits = system.exits
        alter_topic(system, name, str(TOO_SMALL_BYTES))
        try:
            time.sleep(fault.length_s)
        finally:
            alter_topic(system, name, None)
        return {"topic": name, "exits": system.exits - exits}


def alter_topic(system: System, name: str, max_bytes: str | None) -> None:
    """Set the largest record of a topic, or take that back."""
    change = AlterConfigOpType.SET if max_bytes is not None else AlterConfigOpType.DELETE
    entry = ConfigEntry("max.message.bytes", max_bytes or "", incremental_operation=change)
    wanted = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    until = time.monotonic() + 60
    while True:
        try:
            client = AdminClient(system.settings.client_config() | {"log_level": 0})
            client.incremental_alter_configs([wanted])[wanted].result(10)
            return
        except Exception:  # the broker may be down this moment
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


# -- connections


@contextmanager
def link_of(system: System, fault: Planned) -> Iterator[Link]:
    """The fault's link, for this fault alone; it heals afterwards."""
    name = fault.target.removeprefix("link:")
    link = system.kafka.links[name]
    with system.locks[fault.target]:
        try:
            yield link
        finally:
            link.trouble()


def cut(system: System, fault: Planned) -> Detail:
    """Every connection is reset; new ones too, for a while."""
    with link_of(system, fault) as link:
        link.trouble(refuse=True)
        count = link.cut()
        time.sleep(fault.length_s)
        return {"connections": count}


def half_open(system: System, fault: Planned) -> Detail:
    """Connections stay open, nothing passes; then everything arrives late, or never."""
    with link_of(system, fault) as link:
        link.trouble(silent=True)
        time.sleep(fault.length_s)
        count = link.open_connections()
        if fault.args["then"] == "is cut":
            link.cut()
        return {"connections": count, "then": fault.args["then"]}


def delay(system: System, fault: Planned) -> Detail:
    """Everything takes longer, both ways."""
    with link_of(system, fault) as link:
        link.trouble(delay_s=fault.args["delay_s"])
        time.sleep(fault.length_s)
        return dict(fault.args)


def end_txn_late(system: System, fault: Planned) -> Detail:
    """EndTxn alone reaches the broker late, perhaps after its sender has given up."""
    return _end_txn(system, fault, hold_request_s=fault.args["hold_s"])


def end_txn_answer_late(system: System, fault: Planned) -> Detail:
    """EndTxn arrives, its answer comes late."""
    return _end_txn(system, fault, hold_answer_s=fault.args["hold_s"])


def _end_txn(system: System, fault: Planned, **hold: float) -> Detail:
    with link_of(system, fault) as link:
        before = link.seen["held"]
        link.trouble(**hold)
        time.sleep(fault.length_s)
        return {"held": link.seen["held"] - before, "hold_s": fault.args["hold_s"]}


# -- the others


def broker_kill(system: System, fault: Planned) -> Detail:
    """SIGKILL of the broker, then a start from the same data."""
    with system.locks["broker"]:
        system.kafka.broker.kill()
        time.sleep(fault.length_s)
        began = time.monotonic()
        system.kafka.broker.start()
        return {"start_s": round(time.monotonic() - began, 2)}


def broker_freeze(system: System, fault: Planned) -> Detail:
    """SIGSTOP of the broker for longer than a transaction may last."""
    with system.locks["broker"]:
        system.kafka.broker.pause()
        try:
            time.sleep(fault.length_s)
        finally:
            system.kafka.broker.resume()
        return {}


GATEWAY: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, float]]]] = {
    "gateway_error_before": lambda args: {"error_before": args["rate"]},
    "gateway_drop_after": lambda args: {"drop_after_charge": args["rate"]},
    "gateway_timeout": lambda args: {"timeout": args["rate"], "timeout_ms": 3000},
    "gateway_409": lambda args: {"conflict": args["rate"]},
    "gateway_429": lambda args: {"rate_limit": args["rate"], "retry_after_s": 1},
    "gateway_slow": lambda args: {"latency_ms": args["latency_ms"]},
}


def gateway(system: System, fault: Planned) -> Detail:
    """The gateway misbehaves at this rate."""
    plan = GATEWAY[fault.kind](fault.args)
    with system.locks["gateway"]:
        before = system.gateway.stats()
        system.gateway.faults(**plan, seed=fault.args.get("seed", 0))
        try:
            time.sleep(fault.length_s)
        finally:
            after = system.gateway.stats()
            system.gateway.faults()
        drawn = {name: n - before["faults"].get(name, 0) for name, n in after["faults"].items()}
        return {**plan, "calls": after["calls"] - before["calls"], "drawn": drawn}


def intake_kill(system: System, fault: Planned) -> Detail:
    """SIGKILL of the intake, mostly between the last record of a transaction and its commit."""
    intake = system.intake
    with intake.lock:
        if intake.done:
            return {"skipped": "everything was sent"}
        amid = bool(fault.args["amid"]) and intake.stop_amid(REACHED_WITHIN_S)
        intake.kill()
        time.sleep(fault.length_s)
        intake.launch()
        return {"amid": amid}


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


def offsets_expired(system: System, fault: Planned) -> Detail:
    """The group's offsets are gone: tasks with state stop, naming what to do; put back, they go on."""
    with ExitStack() as stack:
        for lock in (system.locks["all"], system.locks["broker"]):
            stack.enter_context(lock)
        for _, worker in sorted(system.workers.items()):
            stack.enter_context(worker.lock)
        return expire_offsets(system, fault.length_s)


ACTIONS: Final[Mapping[str, Callable[[System, Planned], Detail]]] = {
    "kill": kill, "kill_at_point": kill_at_point, "freeze": freeze, "freeze_at_point": freeze_at_point,
    "stop": stop, "add": add, "remove": remove, "wipe": wipe, "old_copy": old_copy, "damage": damage,
    "disk_full": disk_full, "clock": clock, "refused": refused, "cut": cut, "half_open": half_open,
    "delay": delay, "end_txn_late": end_txn_late, "end_txn_answer_late": end_txn_answer_late,
    "broker_kill": broker_kill, "broker_freeze": broker_freeze, **dict.fromkeys(GATEWAY, gateway),
    "intake_kill": intake_kill, "deploy": deploy, "offsets_expired": offsets_expired,
}  # fmt: skip
if set(ACTIONS) != set(KINDS):
    raise TypeError(f"every kind needs an action: {set(ACTIONS) ^ set(KINDS)}")

__all__ = ["FaultFailed", "act"]
