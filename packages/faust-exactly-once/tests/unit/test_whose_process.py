"""What a worker changes for its whole process, and that it can be told not to."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest

import faust_exactly_once as exactly_once
from faust_exactly_once import Options, SetupRefused
from faust_exactly_once import worker as worker_module
from faust_exactly_once.worker import Worker


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    """Those of the garbage collector, afterwards as they were."""
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.parametrize("owns", [True, False])
def test_the_collector_is_left_alone_in_a_process_with_other_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, thresholds: tuple[int, int, int], owns: bool
) -> None:
    """`owns_process` is for workers that are alone in theirs, as those of the command line are."""

    async def nothing(*_: Any) -> None:
        pass

    app = faust.App("process", datadir=str(tmp_path), **exactly_once.settings(["kafka://127.0.0.1:1"]))
    layer = exactly_once.install(app, Options(client_config={}, owns_process=owns))
    monkeypatch.setattr(faust.Worker, "on_first_start", nothing)
    monkeypatch.setattr(layer, "learn", nothing)
    worker = Worker.__new__(Worker)
    worker.app = app
    asyncio.run(worker.on_first_start())
    assert owns == (thresholds != gc.get_threshold())


LEAVES = """
import ctypes, sys
from faust_exactly_once.whole_process import bound_the_exit
libc = ctypes.CDLL(None)
libc.__cxa_atexit(libc.abort, None, None)  # as C++ destroys what RocksDB's threads use
bound_the_exit({code})
print("its last words")
sys.exit({code})
"""


@pytest.mark.parametrize("code", [0, 1])
def test_a_worker_ends_with_its_exit_code_whatever_its_libraries_do_at_an_exit(code: int) -> None:
    """A database left open by a task without an answer from Kafka made it a SIGSEGV."""
    program = [sys.executable, "-c", LEAVES.format(code=code)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert (code, "its last words\n", "") == (ended.returncode, ended.stdout, ended.stderr)


HEAPS = """
import ctypes, sys, threading
from faust_exactly_once.whole_process import bound_the_heap
if {owns}:
    bound_the_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes, libc.fflush.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
gate = threading.Barrier(12)
def allocate():
    gate.wait()
    libc.malloc(1000)
    gate.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for one in threads:
    one.start()
for one in threads:
    one.join()
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
@pytest.mark.parametrize(("owns", "more", "expected"), [
    (True, {}, range(1, 3)),
    (True, {"MALLOC_ARENA_MAX": "5"}, range(3, 6)),
    (False, {}, range(3, 100)),
])  # fmt: skip
def test_a_dozen_threads_share_two_heaps(owns: bool, more: dict[str, str], expected: range) -> None:
    """As glibc itself counts them; a number of its own in the environment stays, so do other processes."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | more
    program = [sys.executable, "-c", HEAPS.format(owns=owns)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=300, env=environ)
    assert (0, "") == (ended.returncode, ended.stderr)
    assert ended.stdout.count("<heap nr=") in expected


CRASHES = """
import ctypes
from faust_exactly_once import whole_process
whole_process.show_crashes()
def where_it_happened():
    ctypes.string_at(0)
where_it_happened()
"""


def test_a_crash_in_native_code_leaves_the_stacks_of_all_threads() -> None:
    """librdkafka and RocksDB run in the process; a bare exit code -11 says nothing to whoever is paged."""
    program = [sys.executable, "-c", CRASHES]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert -signal.SIGSEGV == ended.returncode
    assert "Fatal Python error: Segmentation fault" in ended.stderr
    assert "where_it_happened" in ended.stderr


@pytest.mark.parametrize("owns", [True, False])
def test_a_worker_shows_crashes_from_its_start_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owns: bool
) -> None:
    """Before anything that could crash; not in a process with other work, which has its own handler."""
    calls: list[str] = []

    def refused(_: object) -> None:
        calls.append("prepare")
        raise SetupRefused("not today")

    monkeypatch.setattr(worker_module, "show_crashes", lambda: calls.append("show_crashes"))
    monkeypatch.setattr(worker_module, "bound_the_heap", lambda: None)
    monkeypatch.setattr(worker_module, "prepare", refused)
    app = faust.App("process", datadir=str(tmp_path), **exactly_once.settings(["kafka://127.0.0.1:1"]))
    exactly_once.install(app, Options(client_config={}, owns_process=owns))
    worker = Worker.__new__(Worker)
    worker.app = app
    with pytest.raises(SystemExit):
        worker.execute_from_commandline()
    assert (["show_crashes"] if owns else []) + ["prepare"] == calls
