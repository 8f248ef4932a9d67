"""When the periods of a subscription begin.

Pure arithmetic in UTC. A period is counted from the anchor, never from the period before it: a subscription
anchored at the 31st renews at the last day of a shorter month, then at the 31st again. The time of day is
that of the anchor.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Final

DAY_MS: Final = 86_400_000
_DAYS: Final = {"day": 1, "week": 7}
_MONTHS: Final = {"month": 1, "year": 12}
INTERVALS: Final = frozenset(_DAYS | _MONTHS)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def start_of(anchor_ms: int, interval: str, index: int) -> int:
    """When period `index` (0: the first) begins, ms since the epoch; `interval` is one of INTERVALS."""
    if interval in _DAYS:
        return anchor_ms + index * _DAYS[interval] * DAY_MS
    anchor = _utc(anchor_ms)
    years, month = divmod(anchor.month - 1 + index * _MONTHS[interval], 12)
    year, month = anchor.year + years, month + 1
    day = min(anchor.day, monthrange(year, month)[1])
    return _ms(anchor.replace(year=year, month=month, day=day))


def index_at(anchor_ms: int, interval: str, at_ms: int) -> int:
    """The period in which a moment lies; the first one for a moment before it."""
    if at_ms <= anchor_ms:
        return 0
    if interval in _DAYS:
        return (at_ms - anchor_ms) // (_DAYS[interval] * DAY_MS)
    anchor, at = _utc(anchor_ms), _utc(at_ms)
    months = (at.year - anchor.year) * 12 + at.month - anchor.month
    index = months // _MONTHS[interval]
    return index if start_of(anchor_ms, interval, index) <= at_ms else index - 1


def first_from(anchor_ms: int, interval: str, at_ms: int) -> int:
    """The first period that begins at a moment or after it."""
    index = index_at(anchor_ms, interval, at_ms)
    return index if start_of(anchor_ms, interval, index) >= at_ms else index + 1


def name_of(anchor_ms: int, interval: str, index: int) -> str:
    """How a period is named in a business_ref: 2026-12 for a month, else the date on which it begins."""
    begins = _utc(start_of(anchor_ms, interval, index))
    return begins.strftime("%Y-%m" if interval == "month" else "%Y-%m-%d")


def _utc(at_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=at_ms)


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
