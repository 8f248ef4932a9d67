"""Which functions run, and in which files, while something is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PRODUCT = ("streamsocial_billing/", "tables/")
LAYER = "packages/faust-exactly-once/src/"


class Called(NamedTuple):
    """A Python function that was called, or a coroutine that went on; `caller` is the file that did it.

    Files are paths below the repository; libraries in between are passed over.
    """

    file: str
    function: str
    caller: str | None


def calls_of(run: Callable[[], object], within: str) -> list[Called]:
    """What the product and its layer call inside the first call of a function, named as `Class.method`."""
    found: list[Called] = []
    stack: list[tuple[FrameType, str | None]] = []
    inside: FrameType | None = None
    is_over = False

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal inside, is_over
        if event == "return" and stack and stack[-1][0] is frame:
            stack.pop()
            is_over = is_over or frame is inside
        elif event == "call":
            name, file = frame.f_code.co_qualname, _ours(frame.f_code.co_filename)
            caller = next((one for _, one in reversed(stack) if one is not None), None)
            stack.append((frame, file))
            if inside is None and name == within:
                inside = frame
            if inside is not None and not is_over and file is not None:
                found.append(Called(file, name, caller))

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def _ours(name: str) -> str | None:
    """The path below the repository; None for a library, for generated code, for a test."""
    if not name.startswith(str(ROOT)):
        return None
    path = name[len(str(ROOT)) + 1 :]
    return path if path.startswith((*PRODUCT, LAYER)) else None


def files_entered(calls: list[Called]) -> list[str]:
    """The files of the product in the order in which others call into them, each time."""
    product = [one for one in calls if one.file.startswith(PRODUCT)]
    return [one.file for one in product if one.file != one.caller]


def returns(entered: list[str]) -> list[str]:
    """Those of them that had been entered before."""
    return [file for place, file in enumerate(entered) if file in entered[:place]]
