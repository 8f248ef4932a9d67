"""Asks workers (support.halting_worker) to halt at a point of a commit or of an opening, and lets them go."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.until import until

from processes import ROOT

COMMIT_POINTS = (
    "before_send", "between_sends", "before_offsets", "before_commit", "after_commit", "after_store",
)  # fmt: skip
OPENING_POINTS = (
    "before_fence", "after_fence", "after_offsets", "after_log_ends", "during_recovery", "after_recovery",
    "after_seek",
)  # fmt: skip


class Halted(NamedTuple):
    """The one that halts: a task of a worker."""

    pid: int
    partition: int


class Halts:
    """What a test and its workers share: a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def program(self) -> tuple[str, ...]:
        """The worker to start instead of the product's own command."""
        # -P: modules beside the script must not hide those of the standard library
        return sys.executable, "-P", str(ROOT / "tests/support/halting_worker.py"), str(self._folder)

    @contextmanager
    def asked(self, point: str) -> Iterator[None]:
        """The next task that reaches the point halts; at the end of the `with` whoever halts goes on."""
        asking = self._folder / f"at-{point}"
        asking.touch()
        try:
            yield
        finally:
            asking.unlink(missing_ok=True)
            for halted in self._folder.glob("halted-*"):
                halted.unlink()

    def wait(self, point: str) -> Halted:
        """Return when a task halts at the point."""
        until(lambda: any(self._halted(point)), f"a task halts at {point}")
        halted = next(self._halted(point))
        assert halted.partition >= 0, f"support.halting_worker does not find whose {point} it is"
        return halted

    def _halted(self, point: str) -> Iterator[Halted]:
        for path in self._folder.glob(f"halted-{point}-*"):
            found = re.fullmatch(rf"halted-{point}-(\d+)-(-?\d+)", path.name)
            if found:
                yield Halted(int(found[1]), int(found[2]))
