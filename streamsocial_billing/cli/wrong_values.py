"""What click says about a wrong value, in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_NUMBER: Final = r"-?[0-9]+(?:\.[0-9]+)?"
_PLAIN: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (
        re.compile(rf"({_NUMBER}) is not in the range ({_NUMBER})<=x<=({_NUMBER})\.?"),
        lambda said: f"{said[1]} is not allowed: give a number from {said[2]} to {said[3]}",
    ),
    (
        re.compile(rf"({_NUMBER}) is not in the range x>=({_NUMBER})\.?"),
        lambda said: f"{said[1]} is not allowed: give {said[2]} or more",
    ),
    (
        re.compile(rf"({_NUMBER}) is not in the range x<=({_NUMBER})\.?"),
        lambda said: f"{said[1]} is not allowed: give {said[2]} or less",
    ),
    (re.compile(r"is not a valid integer(?: range)?\b"), lambda said: "is not a whole number"),
    (re.compile(r"is not a valid float(?: range)?\b"), lambda said: "is not a number"),
)  # fmt: skip


def plain(message: str) -> str:
    """The message without click's own notation: `x>=0`, "float range"."""
    for pattern, words in _PLAIN:
        message = pattern.sub(words, message)
    return message
