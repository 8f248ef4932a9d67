"""What each task has done, in numbers."""

from __future__ import annotations

from typing import Any

import faust

EVENTS = "events/"
"""Before a source topic: its events that a handler took."""
DEAD_LETTERS = "dead_letters/"
"""Before a source topic: its events that became dead letters."""
FIRST_RESULTS = "first_results/"
"""Before a source topic: results of its events, replays among them (`resolves` is false); before `external`:
results of what a gateway made."""
FINAL_RESULTS = "final_results"
"""Results that settle an open payment (`resolves` is true)."""
OPENED = "opened"
"""First results that leave a payment open: unknown or parked, no replay."""
OUTCOMES = "outcomes/"
"""Before `charged`, `refunded`, `declined`, `failed`, `rejected`: events of `payments` that ended so, each
once, when its first or its resolving result is final. Before `repeats`: replayed results. Younger than the
counters above, so what an older release handled is not among them (audit/outcomes.py)."""
PARKED = "parked"
"""Open payments that became parked, less those that were settled or became unknown again. Counted from the
release on that brought it, so only its changes mean something: negative at times."""
CHARGED = "charged/"
"""Before a currency: minor units that results say were charged, replays left out."""
REFUNDED = "refunded/"
"""Before a currency: minor units that results say went back."""


def declare_task_counters(app: faust.App, make: Any, **options: Any) -> Any:
    """Declare the counters `task_counters`: one record a task, name -> whole number.

    Added to by every agent, in the unit of what is counted; read by the live audit. Kept for ever. `make`
    declares counters in the layer that the app stands on.
    """
    return make(app, "task_counters", help="what each task has done, in numbers", **options)
