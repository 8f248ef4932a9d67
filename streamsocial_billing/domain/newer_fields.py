"""What a newer release wrote into a row: an older one, beside it for a while, keeps it when it rewrites."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

Row = TypeVar("Row")


def keeping(before: Mapping[str, Any] | None, row: Row, *known: type) -> Row:
    """`row` with those fields of the row `before` it that this release does not know.

    `known`: the types that the row before it, or this one, may be of; what they leave out was left out.
    """
    if before is None:
        return row
    ours = _names(known)
    if before.keys() <= ours:
        return row
    names = [name for name in before if name not in ours]
    return cast(Row, {**cast("dict[str, Any]", row), **{name: before[name] for name in names}})


@cache
def _names(known: tuple[type, ...]) -> frozenset[str]:
    """The fields of these types."""
    return frozenset(name for one in known for name in one.__annotations__)
