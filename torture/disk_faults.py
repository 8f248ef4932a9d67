"""Faults that have a worker's databases: deleted, set back, spoilt, without room to grow."""

from __future__ import annotations

import random
import resource
import shutil
import time
from pathlib import Path

from torture.process_faults import BACK_WITHIN_S, Detail, back, held
from torture.schedule import Planned
from torture.system import System
from torture.workers import Worker


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
