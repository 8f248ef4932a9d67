"""How often each function is called while something is done, Python's and C's, by whose code that is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple

from processes import ROOT

HARNESS: Final = "harness"
OWNERS: Final[dict[str, tuple[str, ...]]] = {
    HARNESS: ("tests/", "packages/faust-exactly-once/tests/"),
    "product": ("streamsocial_billing/", "tables/"),
    "layer": ("packages/faust-exactly-once/src/",),
}
"""Folders of the repository, by who owns what is in them; all other code is a library's."""
LIBRARIES: Final = "libraries"


class Function(NamedTuple):
    """A function and whose it is: of a C function, whose code calls it; so of code that was generated."""

    owner: str
    name: str


def counted(run: Callable[[], object]) -> Counter[Function]:
    """Every call that is made meanwhile in this thread; a coroutine that goes on counts as one, too."""
    found: Counter[tuple[Any, str | None]] = Counter()

    def watch(frame: FrameType, event: str, what: Any) -> None:
        if event == "call":
            code = frame.f_code
            caller = frame.f_back.f_code if code.co_filename == "<string>" and frame.f_back else None
            found[code if caller is None else caller, None if caller is None else code.co_qualname] += 1
        elif event == "c_call":
            found[frame.f_code, what.__qualname__] += 1

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    functions: Counter[Function] = Counter()
    for (code, called), number in found.items():
        functions[_function(code, called)] += number
    return functions


def _function(code: Any, called: str | None) -> Function:
    """`domain/decision.py decide`, or what it calls: `domain/decision.py decide > min`."""
    path = code.co_filename
    path = path[len(str(ROOT)) + 1 :] if path.startswith(f"{ROOT}/") else path
    owner = next((one for one, folders in OWNERS.items() if path.startswith(folders)), LIBRARIES)
    name = f"{'/'.join(path.split('/')[-2:])} {code.co_qualname}"
    return Function(owner, name if called is None else f"{name} > {called}")
