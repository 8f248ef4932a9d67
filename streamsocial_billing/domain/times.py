"""The wall clock, and moments as people and other systems read them; milliseconds since the epoch."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

SUFFIX: Final = "_iso"
OTHER_NAMES: Final = frozenset({
    "anchor", "as_of", "at", "held_since", "not_before", "oldest", "parked_oldest", "since",
    "unknown_oldest", "window_from",
})  # fmt: skip
"""Fields that hold a time without saying so by their end, `_at` or `_at_ms`."""
_NESTED: Final = (dict, list, tuple)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def utc(at_ms: int) -> str:
    """For people: `2026-12-31 23:59:59 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))


def iso_to_the_second(at_ms: int) -> str:
    """`2026-12-31T23:59:59Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso(at_ms: int) -> str | None:
    """`2026-12-01T08:30:00.250Z` of milliseconds since the epoch; None for what no calendar has."""
    try:
        when = _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return None
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_iso(value: Any) -> Any:
    """JSON with `NAME_iso` after each field that holds a time, `NAME_at_ms` becoming `NAME_at_iso`.

    Null and 0 (never) get none. What has them already is not changed.
    """
    if isinstance(value, (list, tuple)):
        return [with_iso(one) for one in value]
    if not isinstance(value, dict):
        return value
    said: dict[str, Any] = {}
    for name, one in value.items():
        said[name] = with_iso(one) if isinstance(one, _NESTED) else one
        if type(one) is int and one > 0 and _is_time(name) and (text := iso(one)) is not None:
            said[name.removesuffix("_ms") + SUFFIX] = text
    return said


def _is_time(name: str) -> bool:
    return name in OTHER_NAMES or name.endswith(("_at", "_at_ms")) or name == "at_ms"
