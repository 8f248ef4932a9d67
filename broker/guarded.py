"""Starts and ends processes that must not outlive this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

GUARD: Final = Path(__file__).resolve().parent / "guard.py"


def start(
    command: Sequence[str], lock_fd: int, output: int | IO[Any], *, cwd: Path,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """The process of `command` itself; its guard ends it when this process ends, however that happens.

    It inherits the lock `lock_fd`, so that the lock lasts as long as the process. `output` gets what it
    writes. Call `ended` once it is over.
    """
    return subprocess.Popen(
        [sys.executable, "-I", str(GUARD), str(lock_fd), *command],
        stdin=subprocess.PIPE,  # held open by this process alone: its end is our end, see guard.py
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=None if environ is None else dict(environ),
        start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the others in order
        pass_fds=(lock_fd,),
    )


def ended(process: subprocess.Popen[bytes], within_s: float, *, by_force: bool = True) -> int | None:
    """Its exit code; after `within_s` it is killed, or (not `by_force`) None: it lives."""
    try:
        code = process.wait(within_s)
    except subprocess.TimeoutExpired:
        if not by_force:
            return None
        process.kill()
        code = process.wait()
    if process.stdin is not None:
        process.stdin.close()  # its guard ends at once
    return code
