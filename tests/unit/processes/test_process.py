"""A process of ours from its start to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.until import until

from processes import ROOT
from processes.heard import HeardProcess
from processes.kernel import cpu_s, lives, parent_of, peak_bytes, resident_bytes
from processes.process import Process

ENDS_WITHIN_S = 120.0
"""A Python that starts, or ends, on a machine that does much else."""
FOR_EVER_S = 500.0
SAYS = "import sys, time; print('one', flush=True); print('two', flush=True)"
WAITS = [sys.executable, "-c", f"{SAYS}; time.sleep(300)"]
ENDS = [sys.executable, "-c", f"{SAYS}; sys.exit(3)"]
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STUBBORN = [sys.executable, "-c", f"{DEAF}; {SAYS}; time.sleep(300)"]
BUSY = [sys.executable, "-c", f"""
import threading, zlib
def work():
    while True:
        zlib.compress(bytes(100_000))
for _ in range(20):
    threading.Thread(target=work).start()
{SAYS}
"""]  # fmt: skip
STARTER = """
import os, sys
from pathlib import Path
from processes.process import Process
process = Process("waits", [sys.executable, "-c", "import time; time.sleep(300)"], Path(os.devnull))
process.launch()
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[HeardProcess]:
    """One whose command the test names; gone at the end."""
    process = HeardProcess("it", WAITS, tmp_path / "log", keeps=None)
    yield process
    process.kill()


def started(process: HeardProcess, command: list[str]) -> HeardProcess:
    """Once it has said what it says."""
    process.command = command
    process.launch()
    assert "two" == process.wait_line("t.o", ENDS_WITHIN_S)
    return process


def test_before_its_first_start_it_is_nothing(heard: HeardProcess) -> None:
    """It can be asked and ended all the same."""
    assert (0, False, None) == (heard.pid, heard.running, heard.code)
    heard.pause()
    assert heard.terminate(1)
    assert 0 == heard.kill()


def test_a_process_ends_when_it_is_asked(heard: HeardProcess) -> None:
    """Its code is the signal's; a paused one is woken for it."""
    started(heard, WAITS).pause()
    assert not heard.wait(0.05)
    assert heard.terminate(ENDS_WITHIN_S)
    assert (-signal.SIGTERM, False) == (heard.code, heard.running)


def test_a_paused_process_stands_still_when_that_returns(heard: HeardProcess) -> None:
    """Each thread of it: without that one of them may still answer, on a machine that does much else."""
    started(heard, BUSY)
    for _ in range(100):
        heard.pause()
        stats = Path(f"/proc/{heard.pid}/task").glob("*/stat")
        assert {"T"} == {one.read_text().rpartition(")")[2].split()[0] for one in stats}
        heard.resume()


def test_one_that_does_not_end_is_killed(heard: HeardProcess) -> None:
    """After the time that it had."""
    assert not started(heard, STUBBORN).terminate(0.2)
    assert -signal.SIGKILL == heard.code


def test_its_lines_can_be_waited_for_until_it_ends(heard: HeardProcess) -> None:
    """Who waits for one that does not come is told at the end of the process, not at that of the time."""
    began = time.monotonic()
    started(heard, ENDS)
    assert heard.wait_line("three", FOR_EVER_S) is None
    assert not heard.wait_lines("one", 2, FOR_EVER_S)
    assert time.monotonic() - began < FOR_EVER_S
    assert heard.wait(ENDS_WITHIN_S)
    assert (3, 1, ["one", "two"], "two") == (heard.code, heard.count("one"), heard.lines(), heard.tail(1))


def test_each_start_has_lines_of_its_own(heard: HeardProcess) -> None:
    """The log holds them all, or begins anew where that is wished."""
    for _ in range(2):
        assert started(heard, ENDS).wait(ENDS_WITHIN_S)
        assert ["one", "two"] == heard.lines()
    assert "one\ntwo\n" * 2 == heard.log_file.read_text()
    heard.launch(afresh=True)
    assert heard.wait(ENDS_WITHIN_S)
    assert (3, "one\ntwo\n") == (heard.starts, heard.log_file.read_text())


def test_a_live_one_is_not_started_twice(heard: HeardProcess) -> None:
    """The second process would be nobody's."""
    started(heard, WAITS)
    with pytest.raises(RuntimeError, match=f"it runs already, as {heard.pid}"):
        heard.launch()


def test_only_so_many_lines_are_kept(tmp_path: Path) -> None:
    """A torture worker writes many."""
    heard = started(HeardProcess("it", WAITS, tmp_path / "log", keeps=1), ENDS)
    assert heard.wait(ENDS_WITHIN_S)
    assert ["two"] == heard.lines()


def test_the_lock_lasts_as_long_as_the_process(tmp_path: Path) -> None:
    """It is inherited, by the process, not by its guard."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    process = Process("it", WAITS, tmp_path / "log", lock_fd=lock)
    process.launch()
    os.close(lock)
    until(lambda: process.log_file.read_bytes() != b"", "the command runs")
    held = [one.resolve() for one in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert (tmp_path / "lock").resolve() in held
    process.kill()


def test_it_does_not_outlive_a_starter_that_was_killed() -> None:
    """Its guard sees the end of the pipe."""
    starter = subprocess.run(
        [sys.executable, "-c", STARTER], cwd=ROOT, capture_output=True, check=False, timeout=ENDS_WITHIN_S,
    )  # fmt: skip
    assert -signal.SIGKILL == starter.returncode
    pid = int(starter.stdout)
    until(lambda: not lives(pid), "the process ends with its starter")


def test_the_kernel_knows_a_process(heard: HeardProcess) -> None:
    """Its parent, its time, its memory; of one that is gone nothing."""
    pid = started(heard, WAITS).pid
    assert (True, os.getpid()) == (lives(pid), parent_of(pid))
    assert 0 < resident_bytes(pid) <= peak_bytes(pid)
    assert cpu_s(os.getpid()) > 0
    heard.kill()
    assert (False, 0) == (lives(pid), parent_of(pid))
    assert (0.0, 0, 0) == (cpu_s(pid), resident_bytes(pid), peak_bytes(pid))
