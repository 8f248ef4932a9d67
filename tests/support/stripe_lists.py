"""Lists and searches as Stripe has them, over all rows of a server that has less."""

from __future__ import annotations

import operator
import re
from typing import Any, Final

Row = dict[str, Any]
EQUAL: Final = ("charge", "customer", "payment_intent")
_QUERY: Final = re.compile(r"metadata\['(\w+)'\]:'([^']*)'")
_CREATED: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def listed(rows: list[Row], query: dict[str, str], url: str) -> Row:
    """A page, newest first, of those rows that the query asks for."""
    found = sorted((row for row in rows if _asked(row, query)), key=_created, reverse=True)
    after, limit = query.get("starting_after"), int(query.get("limit", "10"))
    ids = [row["id"] for row in found]
    start = 0 if after is None else ids.index(after) + 1
    return {
        "object": "list", "url": url, "data": found[start : start + limit],
        "has_more": len(found) > start + limit,
    }  # fmt: skip


def searched(rows: list[Row], query: str, url: str) -> Row:
    """The rows with these metadata; another query than `metadata['name']:'value'` is not understood here."""
    asked = _QUERY.fullmatch(query)
    assert asked is not None, query
    found = [row for row in rows if (row.get("metadata") or {}).get(asked[1]) == asked[2]]
    found.sort(key=_created, reverse=True)
    return {"object": "search_result", "url": url, "data": found, "has_more": False, "next_page": None}


def _created(row: Row) -> int:
    return int(row["created"])


def _asked(row: Row, query: dict[str, str]) -> bool:
    for name, holds in _CREATED.items():
        bound = query.get(f"created[{name}]")
        if bound is not None and not holds(_created(row), int(bound)):
            return False
    return all(row.get(name) == query[name] for name in EQUAL if name in query)
