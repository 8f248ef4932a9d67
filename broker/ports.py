"""Ports of the loopback for brokers: the same one has to be free again when a broker comes back."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Final

STABLE: Final = range(15_000, 32_000)
"""Below the range from which the kernel gives ports to connections: none of them takes one by chance."""
_ours: Final[set[int]] = set()
"""What this process has chosen."""


def is_free(port: int) -> bool:
    """True if this process could listen on it now."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stable_ports(count: int) -> list[int]:
    """So many different ports that nothing listens on; no connection will take them by chance.

    They are this process's until it ends: others that choose by this function choose other ones. Seconds go
    by until a broker listens on its port, and until it does again after it was killed.
    """
    found: list[int] = []
    for port in random.sample(STABLE, len(STABLE)):  # noqa: S311 - any will do
        if port not in _ours and is_free(port) and _reserve(port):
            _ours.add(port)
            found.append(port)
        if len(found) == count:
            break
    return found


def _reserve(port: int) -> bool:
    """Lock the byte of this number in a file that all processes of the user share.

    The kernel lifts the lock when the process ends, however it ends.
    """
    file = _reservations()
    if file is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def _reservations() -> int | None:
    """The shared file, open until the end: closing it would lift all locks. None where none can be made."""
    path = Path(tempfile.gettempdir()) / f"streamsocial-billing-ports-{os.getuid()}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
