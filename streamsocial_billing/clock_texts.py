"""Moments as people read them."""

from __future__ import annotations

import time


def utc(at_ms: int) -> str:
    """Milliseconds since the epoch as in "2026-12-31 23:59:59 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))
