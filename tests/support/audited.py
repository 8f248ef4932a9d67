"""The live audit of the application on one task."""

from __future__ import annotations

from typing import Any

from support.one_task import OneTask

from streamsocial_billing.audit.watching import ROUND_EVERY_MS, LiveAudit
from streamsocial_billing.settings import PAYMENTS


def breaks(lab: OneTask) -> list[str]:
    """What it finds in counters and rows as committed; empty where all is well."""
    counters: Any = lab.app.tables["task_counters"]
    live = LiveAudit(lab.layer, counters, lab.settings.topic(PAYMENTS))
    for look in range(1, 4):
        lab.loop.run_until_complete(live.run_once(lab.now_ms + look * ROUND_EVERY_MS))
    return [str(one) for task in live.tasks() for one in task.breaks]
