"""Starts again what dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from broker import BrokerError
from showcase.errors import ShowcaseFailed

LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 30.0
"""What has answered for so long begins again with the shortest pause when it dies."""


class Part(Protocol):
    """A process that is kept."""

    name: str

    @property
    def running(self) -> bool:
        """True while the process lives."""

    def start_again(self) -> None:
        """Start it over the same data, on the same port; raises ShowcaseFailed, BrokerError, OSError."""

    def answers(self) -> bool:
        """True once it does its work; asked while it lives."""

    def why(self) -> str:
        """How it ended, in one line."""

    def may_start(self) -> bool:
        """False while what it needs is not there: it would only die again."""


@dataclass(slots=True)
class Kept:
    """What is known of a part; moments are those of the keeper's clock.

    came_up     it has answered once: from then on its end is no reason to give up
    up_at       since when it has answered; None: it does not
    down_at     when it died; None: it did not, or is up again
    start_at    when it is started again; None: nobody waits for that
    """

    part: Part
    came_up: bool = False
    up_at: float | None = None
    down_at: float | None = None
    start_at: float | None = None
    deaths: int = 0


class Keeper:
    """Looks after parts; each that dies is started again after 1, 2, 4 ... LONGEST_PAUSE_S seconds."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: list[Kept] = []
        self._say = say
        self._clock = clock

    def add(self, part: Part) -> None:
        """Look after this one, too, from its start on."""
        self._kept.append(Kept(part))

    def all_up(self) -> None:
        """Somebody has seen each part at work: from now on none of them is given up."""
        for kept in self._kept:
            kept.came_up = True

    def look(self) -> None:
        """Do what is due.

        Raises:
            ShowcaseFailed: what has ended never came up: it would not the next time.
        """
        for kept in self._kept:
            if kept.start_at is not None:
                if self._clock() >= kept.start_at and kept.part.may_start():
                    self._start(kept)
            elif not kept.part.running:
                self._ended(kept, kept.part.why())
            elif kept.up_at is None:
                if kept.part.answers():
                    self._came_up(kept)
            elif self._clock() - kept.up_at >= STEADY_S:
                kept.deaths = 0

    def is_down(self, part: Part) -> bool:
        """True from its death until it answers again."""
        return any(kept.part is part and kept.down_at is not None for kept in self._kept)

    def _ended(self, kept: Kept, why: str) -> None:
        if not kept.came_up:
            raise ShowcaseFailed(why)
        pause_s = min(LONGEST_PAUSE_S, 2.0**kept.deaths)
        kept.deaths += 1
        now = self._clock()
        kept.down_at = now if kept.down_at is None else kept.down_at
        kept.up_at, kept.start_at = None, now + pause_s
        self._say(f"{why}; it is started again in {pause_s:g} s")

    def _start(self, kept: Kept) -> None:
        kept.start_at = None
        try:
            kept.part.start_again()
        except (ShowcaseFailed, BrokerError, OSError) as error:
            self._ended(kept, f"{kept.part.name} does not start: {error}")

    def _came_up(self, kept: Kept) -> None:
        now = self._clock()
        if kept.down_at is not None:
            self._say(f"{kept.part.name} is up again after {now - kept.down_at:.0f} s")
        kept.came_up, kept.up_at, kept.down_at = True, now, None
