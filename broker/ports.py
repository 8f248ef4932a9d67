"""Ports of the loopback for brokers: the same one has to be free again when a broker comes back."""

from __future__ import annotations

import random
import socket
from typing import Final

STABLE: Final = range(15_000, 32_000)
"""Below the range from which the kernel gives ports to connections: none of them takes one by chance."""


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
    """So many different ports that nothing listens on; no connection will take them by chance."""
    found: list[int] = []
    for port in random.sample(STABLE, len(STABLE)):  # noqa: S311 - any will do
        if is_free(port):
            found.append(port)
        if len(found) == count:
            break
    return found
