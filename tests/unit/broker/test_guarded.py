"""Processes that must not outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import lives
from support.simulator import ROOT
from support.until import until

from broker import guarded

WAITS = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(300)"]
STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True);"
    "time.sleep(300)",
]  # fmt: skip
STARTER = """
import os, sys
from pathlib import Path
from broker import guarded
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
process = guarded.start([sys.executable, "-c", "import time; time.sleep(300)"], lock, sys.stderr, cwd=Path())
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    """A descriptor to inherit."""
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def started(command: list[str], lock: int, folder: Path) -> subprocess.Popen[bytes]:
    """The process, once it runs."""
    process = guarded.start(command, lock, subprocess.PIPE, cwd=folder)
    assert process.stdout is not None
    assert b"here\n" == process.stdout.readline()
    process.stdout.close()
    return process


def test_a_process_ends_when_it_is_asked(lock: int, tmp_path: Path) -> None:
    """Its code is the signal's."""
    process = started(WAITS, lock, tmp_path)
    assert guarded.ended(process, 0.05, by_force=False) is None
    process.send_signal(signal.SIGTERM)
    assert -signal.SIGTERM == guarded.ended(process, 20)


def test_one_that_does_not_end_is_killed(lock: int, tmp_path: Path) -> None:
    """After the time that it had."""
    process = started(STUBBORN, lock, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert -signal.SIGKILL == guarded.ended(process, 0.2)


def test_it_does_not_outlive_a_starter_that_was_killed(tmp_path: Path) -> None:
    """Its guard sees the end of the pipe."""
    starter = subprocess.run(
        [sys.executable, "-c", STARTER, str(tmp_path / "lock")], cwd=ROOT, capture_output=True, check=False,
        timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert -signal.SIGKILL == starter.returncode
    pid = int(starter.stdout)
    until(lambda: not lives(pid), "the process ends with its starter", 30)
