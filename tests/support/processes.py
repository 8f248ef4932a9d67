"""What the kernel says of a process."""

from __future__ import annotations

from pathlib import Path


def lives(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    try:
        return "Z" != Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
