"""What the kernel says of a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def lives(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def parent_of(pid: int) -> int:
    """The process id of its parent; 0 where it does not exist."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def cpu_s(pid: int) -> float:
    """CPU seconds so far, user with system; 0 where it does not exist."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND if fields else 0.0


def resident_bytes(pid: int) -> int:
    """What it holds in memory now; 0 where it does not exist, or there is no /proc."""
    return _of_memory(pid, "VmRSS:")


def peak_bytes(pid: int) -> int:
    """The most that it has held in memory; 0 where it does not exist, or there is no /proc."""
    return _of_memory(pid, "VmHWM:")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _of_memory(pid: int, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith(field)]
    return int(found[0]) * 1024 if found else 0
