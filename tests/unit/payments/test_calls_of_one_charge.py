"""How many function calls one charge takes, Python's and C's: the same number on every run.

Counted while the whole application handles many charges in memory, in one go, at a gateway inside the
process: one that answers at once, and one that answers after 50 ms while more charges are there than may be
under way. What the harness calls (virtual clock, Kafka in memory) does not count. On a busy machine a time
says what else it does; this says only what a charge does.

`CALLS=write pytest` on this file writes `calls_of_one_charge.json` anew: calls a charge of each function, as
a reader of a failure wants to have them beside what is counted now. A bound is lowered by hand.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

import orjson
import pytest
from support.counted import HARNESS, LIBRARIES, counted
from support.one_task import OneTask

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.settings import PAYMENTS, Settings

RECORDED: Final = Path(__file__).with_name("calls_of_one_charge.json")
CHARGES: Final = 500
USERS: Final = 250
MOST: Final = {
    "at once": {"product": 63, "layer": 52, LIBRARIES: 2},
    "after 50 ms": {"product": 75, "layer": 70, LIBRARIES: 31},
}
"""Calls a charge, by when the gateway answers, by whose code it is."""
WAYS: Final = {
    "at once": (0.0, Settings(partitions=1)),
    "after 50 ms": (0.05, Settings(partitions=1, max_in_flight=100, commit_distance_ms=1000)),
}
"""The gateway's delay in seconds; how many are called at once, a tenth of the charges or all. Commits pace
themselves by real time, so those of the second are kept apart: their number would differ from run to run."""
Calls = dict[str, dict[str, float]]


def wish(number: int, at_ms: int) -> PaymentEvent:
    """A charge, two for each user."""
    return PaymentEvent(
        payment_id=f"pay_{number:032x}", user_id=f"user_{number % USERS}", product="gift", amount_minor=499,
        currency="USD", payment_method="pm_card_visa", gateway="simulated", requested_at=at_ms,
    )  # fmt: skip


@pytest.fixture(scope="module")
def calls() -> dict[str, Calls]:
    """Calls a charge of known users, by when the gateway answers, by owner, by function."""
    return {answers: calls_of(*way) for answers, way in WAYS.items()}


def calls_of(delay_s: float, settings: Settings) -> Calls:
    """The same at one gateway."""
    with OneTask(InstantGateway(delay_s), settings=settings) as lab:
        lab.send(*(wish(number, lab.now_ms) for number in range(USERS)))
        for number in range(USERS, USERS + CHARGES):
            one = wish(number, lab.now_ms)
            lab.append(PAYMENTS, one.user_id.encode(), one.to_bytes())
        found = counted(lab.handle)
    by_owner: Calls = {}
    for (owner, name), number in sorted(found.items()):
        each = round(number / CHARGES, 2)
        if owner != HARNESS and each >= 0.1:  # less is work of the batch or of its commit
            by_owner.setdefault(owner, {})[name] = each
    return by_owner


@pytest.mark.parametrize(("answers", "owner"), [(one, owner) for one, most in MOST.items() for owner in most])
def test_a_charge_takes_few_calls(calls: dict[str, Calls], answers: str, owner: str) -> None:
    """No more than that; who calls more than was recorded stands in the message."""
    if os.environ.get("CALLS") == "write":
        RECORDED.write_bytes(orjson.dumps(calls, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    recorded, now = orjson.loads(RECORDED.read_bytes())[answers][owner], calls[answers][owner]
    total, most = sum(now.values()), MOST[answers][owner]
    assert total <= most, f"{total:.1f} calls of the {owner}, at most {most}.\n" + "\n".join(
        grown(now, recorded)
    )


def grown(now: dict[str, float], recorded: dict[str, float]) -> list[str]:
    """What is called more often than was recorded, the most grown first."""
    more = Counter({name: each - recorded.get(name, 0.0) for name, each in now.items()})
    return [
        f"{now[name]:6.2f} (recorded {recorded.get(name, 0.0):.2f})  {name}"
        for name, by in more.most_common() if by > 0.005
    ]  # fmt: skip
