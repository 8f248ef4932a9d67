"""The data folder of a worker, held by one process at a time."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import SetupRefused

FOLDER_WAIT_S = 5.0  # how long a worker that ends right now may still hold the data folder


@contextmanager
def folder_of_its_own(
    folder: Path, advice: str = "give each worker its own --datadir"
) -> Iterator[None]:
    """Hold the data folder for this process alone; the operating system frees it however the process ends.

    `advice` is what to do while a worker holds it. RocksDB has a lock for each database too, but meets it
    only when a task opens.

    Raises:
        SetupRefused: another worker holds it for more than 5 s.
        OSError: the folder cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "worker.lock").open("a+", encoding="ascii") as lock:
        deadline = time.monotonic() + FOLDER_WAIT_S
        while not _is_locked(lock.fileno()):
            if time.monotonic() > deadline:
                lock.seek(0)
                pid = lock.read().strip() or "?"
                raise SetupRefused(
                    f"the data folder {folder} is in use by the worker with pid {pid}: {advice}"
                )
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as exc:
        raise SetupRefused(
            f"the data folder {folder} cannot be written ({reason_of(exc)}): choose another --datadir"
        ) from exc


def reason_of(exc: OSError) -> str:
    """The system's reason, without what Python adds to it."""
    return os.strerror(exc.errno) if exc.errno and exc.errno > 0 else str(exc)
