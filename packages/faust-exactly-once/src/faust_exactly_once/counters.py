"""The sums of a task's counters as they stand in its changelog."""

import json
from collections.abc import Mapping

RECORD = b"task"
"""The one key of a table of counters: each task has its own record, in its own partition."""


def summed(committed: bytes | None, added: Mapping[str, int]) -> bytes:
    """The record after one more commit; `committed` is the one before, None where nothing was counted."""
    numbers = read(committed)
    for name, number in added.items():
        numbers[name] = numbers.get(name, 0) + number
    return json.dumps(numbers, sort_keys=True, separators=(",", ":")).encode()


def read(record: bytes | None) -> dict[str, int]:
    """The sums by name; Python's own JSON, as orjson refuses integers of more than 64 bits."""
    return {} if record is None else dict(json.loads(record))
