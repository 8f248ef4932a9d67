"""The lab's plan: the same seed, the same payments, the same faults."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.guarantees import GUARANTEES
from lab.plan import KILL_POINTS, RESENT_OF, plan

SEEDS = st.integers(0, 2**31)
PAYMENTS = st.integers(300, 2_000)


@settings(deadline=None)
@given(SEEDS, PAYMENTS)
def test_a_seed_has_one_plan(seed: int, payments: int) -> None:
    """A run can be repeated: payments, their order and the faults follow from the seed."""
    assert plan(seed, payments) == plan(seed, payments)


@settings(deadline=None)
@given(SEEDS, PAYMENTS)
def test_every_twentieth_payment_is_sent_twice_and_none_more_often(seed: int, payments: int) -> None:
    """Re-sent events are part of every run; everything is sent at least once."""
    made = plan(seed, payments)
    sent = Counter(one.payment_id for one in made.events)
    assert payments == len(made.payments) == len(sent)
    assert {1: payments - payments // RESENT_OF, 2: payments // RESENT_OF} == Counter(sent.values())


@settings(deadline=None)
@given(SEEDS, PAYMENTS)
def test_each_point_gets_one_kill_within_the_storm_in_the_order_of_time(seed: int, payments: int) -> None:
    """So that each guarantee meets the crash that harms it in every run."""
    made = plan(seed, payments)
    assert sorted(KILL_POINTS) == sorted(kill.point for kill in made.kills)
    shares = [kill.share for kill in made.kills]
    assert shares == sorted(shares)
    assert 0 < shares[0] and shares[-1] < 1
    for begin, end in (made.dropping, made.joining):
        assert 0 < begin < end < 1


def test_each_program_passes_points_that_the_plan_knows() -> None:
    """A kill at a point that nobody passes would never come."""
    for guarantee in GUARANTEES:
        assert guarantee.points.keys() <= set(KILL_POINTS)
        assert len(guarantee.points) >= 2
