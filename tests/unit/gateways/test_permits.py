"""The bound on calls in flight: whoever comes, goes, gives up or is cancelled, in virtual time."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from layer_kit.virtual_time import VirtualTimeLoop

from streamsocial_billing.gateways.permits import Permits

NUMBER = 2
HALVES = st.integers(0, 8).map(lambda halves: halves / 2)
"""Seconds; few of them, so that much happens at the same moment."""


class Guest(NamedTuple):
    """Comes, waits for so long at most, stays; is cancelled at some time, or never."""

    comes_at: float
    patience_s: float
    stays_s: float
    cancelled_at: float | None


class House:
    """Who had to wait, who of them came in, in which order; how many were inside at once."""

    def __init__(self) -> None:
        self.permits = Permits(NUMBER)
        self.queued: list[int] = []
        self.came: list[int] = []
        self.inside: list[int] = []
        self.most = 0

    async def visit(self, number: int, guest: Guest) -> bool:
        """One guest's visit; False: there was no place."""
        await asyncio.sleep(guest.comes_at)
        waits = not self.permits.free
        if waits:
            self.queued.append(number)
        if not await self.permits.wait(guest.patience_s):
            return False
        try:
            if waits:
                self.came.append(number)
            self.inside.append(number)
            self.most = max(self.most, len(self.inside))
            await asyncio.sleep(guest.stays_s)
            return True
        finally:
            self.inside.remove(number)
            self.permits.leave()

    async def evening(self, guests: list[Guest]) -> list[bool | BaseException]:
        """All visits."""
        loop = asyncio.get_running_loop()
        visits = [loop.create_task(self.visit(number, guest)) for number, guest in enumerate(guests)]
        for visit, guest in zip(visits, guests, strict=True):
            if guest.cancelled_at is not None:
                loop.call_later(guest.cancelled_at, visit.cancel)
        return await asyncio.gather(*visits, return_exceptions=True)


@settings(max_examples=300)
@given(st.lists(st.builds(Guest, HALVES, HALVES, HALVES, st.none() | HALVES), max_size=12))
def test_no_place_is_lost_and_none_is_taken_twice(guests: list[Guest]) -> None:
    """At no time are more inside than there are places; afterwards all are free, nobody is kept in mind."""
    house, loop = House(), VirtualTimeLoop()
    try:
        ended = loop.run_until_complete(house.evening(guests))
    finally:
        loop.end()
    assert all(isinstance(one, bool | asyncio.CancelledError) for one in ended), ended
    assert house.most <= NUMBER
    assert (NUMBER, []) == (house.permits.free, list(house.permits.waiting))


@given(st.lists(st.tuples(HALVES, HALVES), max_size=12))
def test_each_comes_in_its_turn(guests: list[tuple[float, float]]) -> None:
    """Who has to wait comes in by the order of arrival; whoever finds a free place passes nobody."""
    house, loop = House(), VirtualTimeLoop()
    patient = [Guest(comes_at, 1000, stays_s, None) for comes_at, stays_s in guests]
    try:
        loop.run_until_complete(house.evening(patient))
    finally:
        loop.end()
    assert house.queued == house.came
