"""Waits for what `/status` of a worker says."""

from __future__ import annotations

import time
from typing import Any

from support.system import System
from support.web_client import get


def status_with(system: System, code: str, within_s: float = 120) -> dict[str, Any]:
    """`/status` as soon as it has this finding."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        answer = get(system.worker.web_port, "/status")
        assert 200 == answer.status, answer.body
        found: dict[str, Any] = answer.json()
        if code in [one["code"] for one in found["findings"]]:
            return found
        time.sleep(0.3)
    raise AssertionError(f"no {code}: {found['findings']}")
