"""Starts and ends processes that must not outlive this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

GUARD: Final = Path(__file__).resolve().parent / "guard.py"


def start(
    command: Sequence[str], output: int | IO[Any], *, lock_fd: int | None = None, cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """The process of `command` itself; its guard ends it when this process ends, however that happens.

    It inherits the lock `lock_fd`, so that the lock lasts as long as the process. `output` gets what it
    writes. Call `ended` once it is over.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), "-" if lock_fd is None else str(lock_fd), *command],
        stdin=subprocess.PIPE,  # held open by this process alone: its end is our end, see guard.py
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=None if environment is None else dict(environment),
        start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the others in order
        pass_fds=() if lock_fd is None else (lock_fd,),
    )


def ended(process: subprocess.Popen[bytes], within_s: float) -> int | None:
    """Its exit code; None if it lives after `within_s`."""
    try:
        code = process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None
    if process.stdin is not None:
        process.stdin.close()  # its guard ends at once
    return code
