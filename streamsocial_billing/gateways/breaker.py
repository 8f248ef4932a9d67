"""Decides whether a gateway is called at all: a circuit breaker.

Pure: no await, no clock; every method takes `now`, monotonic seconds. Closed, every call is admitted. Too
many payments that fail, and it is open: nobody is called for a pause. Then half open: one call goes through
and decides between closed and a pause twice as long.

It counts payments, not calls: one payment that fails again and again says nothing about the others.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]
STATES: Final[tuple[State, ...]] = "closed", "open", "half_open"


@dataclass(frozen=True, slots=True)
class Rules:
    """When it opens, for how long.

    in_a_row         so many different payments whose last call failed, none having gone well in between
    window_payments  or, of so many payments called last ...
    failing_share    ... this share failing
    window_s         payments called longer ago than this, seconds, count no more
    first_pause_s, longest_pause_s  the pause before a probe, doubled after each probe that fails
    """

    in_a_row: int = 8
    window_payments: int = 40
    failing_share: float = 0.6
    window_s: float = 60.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0


class Breaker:
    """The state of one gateway.

    `openings` counts how often it opened, probes that failed not included; `failed_probes` those since it
    was closed. `left_closed_at`: when it opened, monotonic seconds, failed probes not counting; None while it
    is closed. `last_failure`: the reason code of the last call that failed, empty before the first. `period`:
    what `admit` gives while it is closed.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.state: State = "closed"
        self.openings = 0
        self.failed_probes = 0
        self.left_closed_at: float | None = None
        self.last_failure = ""
        self.period = 0
        self._pause_s = rules.first_pause_s
        self._probe_at = 0.0
        self._failing_in_a_row: set[str] = set()
        self._last: OrderedDict[str, tuple[bool, float]] = OrderedDict()

    def permits(self, now: float) -> float:
        """How many calls it would admit now: math.inf, one (a probe) or 0."""
        if self.state == "closed":
            return math.inf
        return 1 if self.state == "open" and now >= self._probe_at else 0

    def admit(self, now: float) -> int | None:
        """Admit a call, or None; who is admitted must say how the call `ended`, with this number."""
        if self.state != "closed":
            if not self.permits(now):
                return None
            self._enter("half_open")
        return self.period

    def ended(self, period: int, payment: str, well: bool | None, now: float, why: str = "") -> None:
        """Take notice of a call's end; `well` None: it says nothing about the gateway (cancelled, say).

        `why` is the reason code of a call that failed. A call that was admitted before the last change of
        state says nothing about the state now.
        """
        if period != self.period:
            return
        if well is False:
            self.last_failure = why
        if self.state == "half_open":
            self._probed(well, now)
        elif well is not None:
            last = self._last
            if payment in last:
                del last[payment]
            last[payment] = well, now
            if len(last) > self._rules.window_payments:
                last.popitem(last=False)
            if not well:
                self._failed(payment, now)
            elif self._failing_in_a_row:
                self._failing_in_a_row.clear()

    def _probed(self, well: bool | None, now: float) -> None:
        if well:
            self._pause_s = self._rules.first_pause_s
            self.failed_probes = 0
            self.left_closed_at = None
            self._enter("closed")
            return
        if well is False:
            self.failed_probes += 1
            self._pause_s = min(self._pause_s * 2, self._rules.longest_pause_s)
        self._probe_at = now if well is None else now + self._pause_s
        self._enter("open")

    def _failed(self, payment: str, now: float) -> None:
        self._failing_in_a_row.add(payment)
        if len(self._failing_in_a_row) >= self._rules.in_a_row or self._most_fail(now):
            self.openings += 1
            self.left_closed_at = now
            self._probe_at = now + self._pause_s
            self._enter("open")

    def _most_fail(self, now: float) -> bool:
        recent = [well for well, at in self._last.values() if now - at <= self._rules.window_s]
        if len(recent) < self._rules.window_payments:
            return False
        return recent.count(False) >= self._rules.failing_share * len(recent)

    def _enter(self, state: State) -> None:
        self.state = state
        self.period += 1
        self._failing_in_a_row.clear()
        self._last.clear()
