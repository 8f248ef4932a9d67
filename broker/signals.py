"""What a command of ours does when a signal asks for its end: stop in order, once."""

from __future__ import annotations

import signal
from collections.abc import Callable

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_with(stopped: Callable[[int], BaseException]) -> None:
    """At the first of these signals raise what `stopped` makes of its number; ignore every later one."""

    def stop(number: int, _frame: object) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not cut the orderly stop short
        raise stopped(number)

    for each in STOPPING:
        signal.signal(each, stop)


def exit_by_signal(number: int) -> SystemExit:
    """The exit as a shell has it."""
    return SystemExit(128 + number)
