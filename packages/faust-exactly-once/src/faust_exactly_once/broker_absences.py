"""Knows which brokers of the cluster do not answer this worker, since when."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .brokers import BrokerState
from .connectivity import AWAY_AFTER_S, Change


class BrokerChange(NamedTuple):
    """A broker has gone away or is back.

    Attributes:
        was_away_s: how long it has been away, so far or in all, seconds.
        leads: the partitions of any source whose leader it is, as far as is known.
    """

    change: Change
    number: int
    address: str
    was_away_s: float
    leads: frozenset[int]


@dataclass(slots=True)
class _Known:
    """A broker's last answer and, while it has none, since when; ms since the epoch."""

    seen: BrokerState
    answered_ms: int | None = None
    lost_ms: int | None = None
    away: bool = False


class Brokers:
    """Which brokers answer; `look` has to be called about once a second with what is seen of each."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def look(self, seen: Mapping[int, BrokerState]) -> list[BrokerChange]:
        """Take in what is seen now; says of each broker once that it has gone away, once that it is back."""
        now_ms = int(self._clock() * 1000)
        self._known = {number: self._known.get(number) or _Known(one) for number, one in seen.items()}
        found = []
        for number, known in self._known.items():
            known.seen = seen[number]
            change = _changed(known, now_ms)
            if change is not None:
                since_ms = known.lost_ms or now_ms
                away_s = (now_ms - since_ms) / 1000
                found.append(BrokerChange(change, number, known.seen.address, away_s, known.seen.leads))
            if known.seen.answers:
                known.answered_ms, known.lost_ms = now_ms, None
        return found

    def any_answers(self) -> bool:
        """False if all are known not to answer."""
        return not self._known or any(one.seen.answers for one in self._known.values())

    def several(self) -> bool:
        """True if the cluster has more than one."""
        return len(self._known) > 1

    def status(self, here: Iterable[int]) -> list[dict[str, object]]:
        """Each broker: id, address, up, since (ms, None while it is up), the partitions `here` it leads."""
        mine = set(here)
        return [
            {
                "id": number, "address": one.seen.address, "up": not one.away,
                "since": one.lost_ms if one.away else None, "partitions": sorted(one.seen.leads & mine),
            }
            for number, one in self._known.items()
        ]  # fmt: skip


def _changed(known: _Known, now_ms: int) -> Change | None:
    if known.seen.answers:
        was_away, known.away = known.away, False
        return "back" if was_away else None
    if known.lost_ms is None:
        known.lost_ms = known.answered_ms or now_ms
    if known.away or now_ms - known.lost_ms < AWAY_AFTER_S * 1000:
        return None
    known.away = True
    return "away"
