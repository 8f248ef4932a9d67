"""The circuit breaker: its rules in virtual time.

Operations that hypothesis makes: a call begins, a call ends (well, badly, without news), time passes.
Properties:
1. While it is not closed, at most one call of its present period is under way.
2. Between its opening and the end of the pause nobody is admitted.
3. Whatever happened, a gateway that works again is called again: it is never open for ever.
4. What began before the last change of state changes nothing.
5. Its memory is bounded.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamsocial_billing.gateways.breaker import Breaker, Rules

RULES = Rules(in_a_row=3, window_payments=10, failing_share=0.6, first_pause_s=1, longest_pause_s=8)


def call(breaker: Breaker, payment: str, well: bool | None, now: float = 0.0) -> bool:
    """One whole call; False if it was not admitted."""
    period = breaker.admit(now)
    if period is not None:
        breaker.ended(period, payment, well, now)
    return period is not None


def opened(now: float = 0.0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(RULES)
    for number in range(RULES.in_a_row):
        call(breaker, f"p{number}", False, now)
    assert "open" == breaker.state
    return breaker


def test_so_many_payments_failing_in_a_row_open_it() -> None:
    """The last of them; from then on nobody is admitted."""
    breaker = Breaker(RULES)
    states = []
    for number in range(3):
        call(breaker, f"p{number}", False)
        states.append(breaker.state)
    assert ["closed", "closed", "open"] == states
    assert (None, 0, 1) == (breaker.admit(0.5), breaker.permits(0.5), breaker.openings)


def test_it_knows_since_when_it_is_open_and_why() -> None:
    """Probes that fail neither begin that time anew nor hide the newest reason; once closed it forgets it."""
    breaker = Breaker(RULES)
    for number in range(RULES.in_a_row):
        breaker.ended(breaker.admit(5.0) or 0, f"p{number}", False, 5.0, "unreachable")
    assert (5.0, "unreachable") == (breaker.left_closed_at, breaker.last_failure)
    breaker.ended(breaker.admit(7.0) or 0, "p9", False, 7.0, "timeout")
    assert ("open", 5.0, "timeout") == (breaker.state, breaker.left_closed_at, breaker.last_failure)
    assert call(breaker, "p10", True, now=20.0)
    assert ("closed", None) == (breaker.state, breaker.left_closed_at)


def test_one_payment_that_fails_again_and_again_does_not_open_it() -> None:
    """Its card, its data, its luck: it says nothing about the others."""
    breaker = Breaker(RULES)
    assert all(call(breaker, "p1", False) for _ in range(100))


def test_a_payment_that_goes_well_in_between_ends_the_row() -> None:
    """Rows of two failures are no row of three, and two of five are no 60 %."""
    breaker = Breaker(RULES)
    for number in range(20):
        call(breaker, f"p{number}", number % 5 < 3)
    assert "closed" == breaker.state


def test_a_share_of_failing_payments_opens_it() -> None:
    """Two of three fail: no row of three, but more than 60 % of the last ten."""
    breaker = Breaker(RULES)
    for number in range(10):
        assert call(breaker, f"p{number}", number % 3 == 2)
    assert "open" == breaker.state


def test_failures_of_long_ago_count_no_more() -> None:
    """The same share, with more time than the window between the payments."""
    breaker = Breaker(RULES)
    for number in range(100):
        assert call(breaker, f"p{number}", number % 3 == 0, now=number * RULES.window_s)
    assert "closed" == breaker.state


def test_a_payment_repaired_by_its_repeat_counts_as_well() -> None:
    """What counts is each payment's last call: a gateway that fails every second call still works."""
    breaker = Breaker(RULES)
    for number in range(50):
        call(breaker, f"p{number}", False)
        call(breaker, f"p{number}", True)
    assert "closed" == breaker.state


def test_after_the_pause_one_call_decides() -> None:
    """The probe alone is admitted; it goes well: closed, for everybody."""
    breaker = opened()
    assert (1, None) == (breaker.permits(1.0), breaker.admit(0.999))
    probe = breaker.admit(1.0)
    assert probe is not None
    assert ("half_open", 0, None) == (breaker.state, breaker.permits(1.0), breaker.admit(1.0))
    breaker.ended(probe, "p9", True, 1.1)
    assert ("closed", math.inf) == (breaker.state, breaker.permits(1.1))


def test_the_pause_doubles_up_to_its_longest_then_begins_anew() -> None:
    """1 s, 2 s, 4 s, 8 s, 8 s between the probes; after a good one the next outage begins with 1 s."""
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        pause_s = next(s / 10 for s in range(1, 200) if breaker.permits(now + s / 10))
        pauses.append(pause_s)
        now += pause_s
        assert call(breaker, "p9", False, now)
    assert [1, 2, 4, 8, 8] == pauses
    assert call(breaker, "p9", True, now + 8)
    for number in range(3):
        call(breaker, f"q{number}", False, now + 8)
    assert (0, 1) == (breaker.permits(now + 8.9), breaker.permits(now + 9))


def test_a_probe_that_brings_no_news_leaves_its_place_to_the_next() -> None:
    """Cancelled in a rebalance, say: the pause is not begun again."""
    breaker = opened()
    assert call(breaker, "p9", None, 1.0)
    assert ("open", 1) == (breaker.state, breaker.permits(1.0))


@pytest.mark.parametrize("well", [True, False])
def test_a_late_end_of_an_older_call_changes_nothing(well: bool) -> None:
    """It began before the breaker opened: neither opens nor closes anything."""
    breaker = Breaker(RULES)
    late = breaker.admit(0.0)
    assert late is not None
    for number in range(3):
        call(breaker, f"p{number}", False)
    breaker.ended(late, "p9", well, 0.5)
    assert ("open", 0) == (breaker.state, breaker.permits(0.5))
    assert call(breaker, "p9", True, 1.0)
    for number in range(5):
        breaker.ended(late, f"p{number}", False, 1.0)
    assert "closed" == breaker.state


class Calls(RuleBasedStateMachine):
    """See the properties at the top."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(RULES)
        self.now = 0.0
        self.under_way: list[tuple[int, str]] = []
        self.number = 0

    @rule(payment=st.integers(0, 12))
    def begin(self, payment: int) -> None:
        """A call asks to be admitted."""
        permits, before = self.breaker.permits(self.now), self.breaker.state
        period = self.breaker.admit(self.now)
        assert (period is not None) == (permits > 0)
        if period is not None:
            assert before == "closed" or [] == [p for p, _ in self.under_way if p == period]  # 1
            self.under_way.append((period, f"p{payment}"))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99), well=st.sampled_from([True, False, False, None]))
    def end(self, which: int, well: bool | None) -> None:
        """One of the calls under way ends."""
        period, payment = self.under_way.pop(which % len(self.under_way))
        before, current = self.breaker.state, period == self.breaker.period
        self.breaker.ended(period, payment, well, self.now)
        if not current:
            assert before == self.breaker.state  # 4
        if before == "closed" and self.breaker.state == "open":
            assert 0 == self.breaker.permits(self.now + RULES.first_pause_s - 0.01)  # 2

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def is_bounded(self) -> None:
        """5."""
        assert len(self.breaker._last) <= RULES.window_payments  # noqa: SLF001
        assert len(self.breaker._failing_in_a_row) < RULES.in_a_row  # noqa: SLF001

    def teardown(self) -> None:
        """3: every call ends, the pause passes, one call goes well."""
        for period, payment in self.under_way:
            self.breaker.ended(period, payment, None, self.now)
        assert call(self.breaker, "p1", True, self.now + RULES.longest_pause_s)
        assert "closed" == self.breaker.state


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
