"""Waits until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_S = 120.0



def until(happened: Callable[[], bool], what: str, within_s: float = WAIT_S) -> None:
    """Return as soon as it happened."""
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:.0f} s"
        time.sleep(0.05)
