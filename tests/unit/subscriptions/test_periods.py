"""When periods begin, whatever the anchor.

Operations: any anchor from 1970 to 2100, each interval, indexes of a century.
Checked: (1) starts rise; (2) each keeps the time of day; (3) a month or year keeps the anchor's day or takes
the month's last; (4) each moment lies in exactly one period; (5) names differ.
"""

from calendar import monthrange
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsocial_billing.subscriptions.periods import (
    DAY_MS,
    INTERVALS,
    first_from,
    index_at,
    name_of,
    start_of,
)

anchors = st.integers(0, 4_102_444_800_000)
intervals = st.sampled_from(sorted(INTERVALS))
indexes = st.integers(0, 1200)


def ms(text: str) -> int:
    """A moment in UTC as milliseconds since the epoch."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def day(at_ms: int) -> str:
    """The date of a moment."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


@pytest.mark.parametrize(
    ("anchor", "interval", "expected"),
    [
        ("2026-12-31T10:00", "month", ["2026-12-31", "2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30"]),
        ("2028-01-30T10:00", "month", ["2028-01-30", "2028-02-29", "2028-03-30"]),
        ("2028-02-29T10:00", "year", ["2028-02-29", "2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]),
        ("2026-12-28T23:59", "week", ["2026-12-28", "2027-01-04", "2027-01-11"]),
        ("2026-12-31T00:00", "day", ["2026-12-31", "2027-01-01"]),
    ],
)
def test_a_period_keeps_the_day_of_the_anchor_where_the_month_has_it(
    anchor: str, interval: str, expected: list[str]
) -> None:
    """The 31st becomes the last day of a shorter month, then the 31st again; so does February 29."""
    assert expected == [day(start_of(ms(anchor), interval, index)) for index in range(len(expected))]


@given(anchors, intervals, indexes)
def test_starts_rise_and_keep_the_time_of_day(anchor: int, interval: str, index: int) -> None:
    """(1), (2): no period is empty, none lasts longer than 366 days."""
    begins, ends = start_of(anchor, interval, index), start_of(anchor, interval, index + 1)
    assert DAY_MS <= ends - begins <= 366 * DAY_MS
    assert anchor % DAY_MS == begins % DAY_MS


@given(anchors, st.sampled_from(["month", "year"]), indexes)
def test_a_month_has_the_day_of_the_anchor_or_its_own_last(anchor: int, interval: str, index: int) -> None:
    """(3): never a day in the month after."""
    wanted = datetime.fromtimestamp(anchor / 1000, UTC)
    got = datetime.fromisoformat(day(start_of(anchor, interval, index)))
    assert got.day == min(wanted.day, monthrange(got.year, got.month)[1])
    months = index * (12 if interval == "year" else 1)
    assert months == (got.year - wanted.year) * 12 + got.month - wanted.month


@given(anchors, intervals, indexes, st.integers(0, 367 * DAY_MS))
def test_each_moment_lies_in_one_period(anchor: int, interval: str, index: int, after: int) -> None:
    """(4): at or after its start, before the next one's; the next to begin is this one or the one behind."""
    at_ms = start_of(anchor, interval, index) + after
    found = index_at(anchor, interval, at_ms)
    assert start_of(anchor, interval, found) <= at_ms < start_of(anchor, interval, found + 1)
    begun = start_of(anchor, interval, found) == at_ms
    assert found + (not begun) == first_from(anchor, interval, at_ms)


@given(anchors, st.integers(0, 10**9))
def test_before_the_anchor_the_first_period_is_the_one(anchor: int, before: int) -> None:
    """A trial: nothing is due before it ends."""
    at_ms = anchor - before
    assert (0, 0) == (index_at(anchor, "month", at_ms), first_from(anchor, "month", at_ms))


@given(anchors, intervals, indexes, indexes)
def test_two_periods_never_have_one_name(anchor: int, interval: str, one: int, other: int) -> None:
    """(5): a business_ref names one period."""
    same = name_of(anchor, interval, one) == name_of(anchor, interval, other)
    assert same == (one == other)


def test_a_month_is_named_by_its_month_anything_else_by_its_first_day() -> None:
    """As a caller would name it."""
    anchor = ms("2026-12-31T10:00")
    assert ["2026-12", "2027-12-31", "2027-01-07"] == [
        name_of(anchor, "month", 0), name_of(anchor, "year", 1), name_of(anchor, "week", 1),
    ]  # fmt: skip
