"""The showcase as users start it, with the processes that are its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user who has set nothing but these."""
    ours = ("KAFKA", "BROKERS", "PAYMENTS")
    inherited = os.environ.items()
    clean = {key: value for key, value in inherited if not key.startswith("BILLING_") and key not in ours}
    return clean | variables


@contextmanager
def showcase(folder: Path, command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The running showcase over this folder, output in a pipe; at the end it is asked to stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "showcase", command, "--data", str(folder)],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def pids_of(folder: Path) -> list[int]:
    """The processes whose command line names this folder: all of one showcase, but for itself."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(folder).encode() in words and b"showcase" not in words:
            found.append(int(entry.name))
    return found


def nothing_left(folder: Path, within_s: float = 60.0) -> list[int]:
    """The processes of the showcase that still live after a moment."""
    limit = time.monotonic() + within_s
    while (pids := pids_of(folder)) and time.monotonic() < limit:
        time.sleep(0.1)
    return pids


def read_until(process: subprocess.Popen[str], wanted: Callable[[str], object]) -> list[str]:
    """The lines up to the first one that is wanted; fails with all of them where there is none."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if wanted(line):
            return lines
    raise AssertionError("".join(lines))


def shell(commands: list[str], **variables: str) -> str:
    """What these commands print, typed into one shell in the checkout."""
    script = "; ".join(commands)
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment(**variables), capture_output=True, text=True,
        timeout=150, check=False,
    ).stdout  # fmt: skip
