"""What the analytics consumer counts, and that its database takes all of it or nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.analytics.books import Overtaken, RevenueBooks, Stretch
from lab.analytics.movements import METRICS, RESULTS, Movement, movement
from processes import ROOT

MINUTE = 1_764_600_000_000


def record(**fields: Any) -> bytes:
    """A result of 9.99 USD for a gift, half a minute into MINUTE, but for `fields`."""
    filled = {
        "product": "gift", "currency": "USD", "action": "charge", "amount_minor": 999, "status": "succeeded",
        "replayed": False, "resolves": False, "processed_at": MINUTE + 30_000, "at": MINUTE + 30_000,
        "payment_id": "p1", "user_id": "u1", "reason": None, "gateway": "simulated", "gateway_ref": "ch_1",
        "attempt": 1, "requested_at": MINUTE, "source": None, "gateway_ms": 3, "of_a_newer_release": {},
    }  # fmt: skip
    return json.dumps(filled | fields).encode()


@pytest.mark.parametrize("topic", [RESULTS, METRICS])
@pytest.mark.parametrize(
    ("fields", "moved"),
    [
        ({}, True),
        ({"replayed": True}, False),
        ({"resolves": True}, True),
        ({"status": "unknown"}, False),
        ({"status": "parked"}, False),
        ({"status": "declined"}, False),
        ({"status": "requested"}, False),
        ({"action": "refund"}, True),
    ],
)
def test_what_succeeded_and_is_no_replay_moved_money(topic: str, fields: dict[str, Any], moved: bool) -> None:
    """One rule for both topics: each payment counts once, in the minute of its outcome."""
    action = fields.get("action", "charge")
    assert (Movement(MINUTE, "gift", "USD", action, 999) if moved else None) == movement(
        topic, record(**fields)
    )


def test_refunds_are_beside_charges(tmp_path: Path) -> None:
    """Minutes, products, currencies apart; each an integer of minor units."""
    books = RevenueBooks(tmp_path / "revenue.sqlite")
    sold = [Movement(MINUTE, "gift", "USD", "charge", 999), Movement(MINUTE, "gift", "USD", "refund", 400)]
    books.add({(RESULTS, 0): Stretch(None, 2, [*sold, Movement(MINUTE, "gift", "JPY", "charge", 50)])})
    books.add({(RESULTS, 0): Stretch(2, 3, sold[:1])})
    assert [(MINUTE, "gift", "JPY", 50, 0), (MINUTE, "gift", "USD", 1998, 400)] == books.lines(RESULTS)
    assert ({"JPY": (50, 0), "USD": (1998, 400)}, {}) == (books.totals(RESULTS), books.totals(METRICS))
    books.close()


@pytest.mark.parametrize("start", [None, 3])
def test_what_another_process_counted_is_not_counted_again(tmp_path: Path, start: int | None) -> None:
    """Of two consumers over one database the slower one changes nothing, not even at other places."""
    books, other = (RevenueBooks(tmp_path / "revenue.sqlite") for _ in range(2))
    sold = [Movement(MINUTE, "gift", "USD", "charge", 999)]
    if start is not None:
        books.add({(RESULTS, 1): Stretch(None, start, [])})
    other.add({(RESULTS, 1): Stretch(start, 7, sold)})
    with pytest.raises(Overtaken, match="has read charge-results-1 on"):
        books.add({(RESULTS, 0): Stretch(None, 1, sold), (RESULTS, 1): Stretch(start, 5, sold)})
    assert ({(RESULTS, 1): 7}, {"USD": (999, 0)}) == (books.positions(), books.totals(RESULTS))
    for one in (books, other):
        one.close()


TEN_BATCHES = """
import sys
sys.argv = ["killed_analytics", {point!r}, "4"]
from support import killed_analytics as killed
from pathlib import Path
killed.take_effect()
from lab.analytics.books import RevenueBooks, Stretch
from lab.analytics.movements import Movement
books = RevenueBooks(Path({db!r}))
for start in (None, *range(1, 10)):
    moved = [Movement(0, "gift", "USD", "charge", 1)]
    books.add({{("charge-results", 0): Stretch(start, (start or 0) + 1, moved)}})
"""


@pytest.mark.parametrize("point", ["begin", "move_on", "add", "before_commit", "after_commit"])
def test_killed_at_any_point_the_sums_are_those_of_the_positions(tmp_path: Path, point: str) -> None:
    """SIGKILL in the fourth transaction: it counts whole, after its commit, or not at all."""
    db = tmp_path / "revenue.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", TEN_BATCHES.format(point=point, db=str(db))], check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )  # fmt: skip
    assert -signal.SIGKILL == done.returncode
    books = RevenueBooks(db)
    # the first batch inserts its position, so a position is moved for the fourth time by the fifth batch
    counted = 4 if point in ("after_commit", "move_on") else 3
    assert ({(RESULTS, 0): books.totals(RESULTS)["USD"][0]}, counted) == (
        books.positions(), books.totals(RESULTS)["USD"][0],
    )  # fmt: skip
    books.close()
