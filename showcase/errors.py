"""What ends a showcase before its time."""

from __future__ import annotations


class ShowcaseFailed(Exception):
    """Raised when the showcase cannot go on: one line that names what to do, or where to look."""


class Stopped(BaseException):
    """Raised in the main thread when a signal asks for the end; no handler of exceptions may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
