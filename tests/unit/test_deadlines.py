"""Waits that end at their time, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_kit.virtual_time import VirtualTimeLoop

from streamsocial_billing.deadlines import Deadlines, Patience

HALVES = st.integers(0, 8).map(lambda halves: halves / 2)


class Noted:
    """A wait that may be over early, and notes when it was late."""

    def __init__(self, over_at: float) -> None:
        self.over_at = over_at
        self.late_at: float | None = None

    def done(self) -> bool:
        """True once it is over."""
        return self.late_at is not None or asyncio.get_running_loop().time() >= self.over_at

    def late(self) -> None:
        """Its time has come."""
        self.late_at = asyncio.get_running_loop().time()


CASES = st.tuples(HALVES, HALVES.map(lambda s: s + 0.25), HALVES.map(lambda s: s + 0.1))


@given(st.lists(CASES, max_size=12))
def test_a_wait_is_late_exactly_at_its_time_or_never(cases: list[tuple[float, float, float]]) -> None:
    """Whatever others there are, and whoever of them ends first."""
    loop = VirtualTimeLoop()
    found: list[tuple[float | None, float | None]] = []

    async def one(deadlines: Deadlines, begins: float, within: float, lasts: float) -> None:
        await asyncio.sleep(begins)
        now = asyncio.get_running_loop().time()
        noted = Noted(now + lasts)
        deadlines.add(noted, within)
        await asyncio.sleep(20)
        found.append((noted.late_at, now + within if within < lasts else None))

    async def all_of_them() -> None:
        deadlines = Deadlines()
        await asyncio.gather(*(one(deadlines, *case) for case in cases))

    try:
        loop.run_until_complete(all_of_them())
    finally:
        loop.close()
    for late_at, expected in found:
        assert (late_at is None) == (expected is None)
        assert expected is None or late_at == pytest.approx(expected)


async def test_who_waits_hears_of_the_end_at_once_and_of_none_at_its_time() -> None:
    """Both at the same future: the short one gives up, the long one sees it done."""
    patience, outcome = Patience(), asyncio.get_running_loop().create_future()
    short = asyncio.create_task(patience.wait(outcome, 0.01))
    long = asyncio.create_task(patience.wait(outcome, 5))
    assert not await short
    outcome.set_result(None)
    assert await asyncio.wait_for(long, 1)
    assert await patience.wait(outcome, 0.01)


async def test_who_is_cancelled_ends_nobody_elses_wait() -> None:
    """The future is shared by all who send the same payment."""
    patience, outcome = Patience(), asyncio.get_running_loop().create_future()
    gone, stays = (asyncio.create_task(patience.wait(outcome, 5)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    assert not outcome.cancelled()
    outcome.set_result(None)
    assert await asyncio.wait_for(stays, 1)
    with pytest.raises(asyncio.CancelledError):
        await gone
