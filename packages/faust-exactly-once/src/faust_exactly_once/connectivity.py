"""Knows whether Kafka answers this worker, and which of its brokers does not, since when."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from .brokers import BrokerState

AWAY_AFTER_S: Final = 2.0
"""No contact for less than this is a coordinator that moves, or a worker that has just begun to look."""

MOVES_S: Final = 15.0
"""While other brokers answer, the group's coordinator moves to one of them: within a broker's session (9 s by
Kafka's default) and a little for loading."""

Change = Literal["away", "back"]


class Connectivity:
    """Watches `has_contact`: whether the broker that coordinates the group is known, and brokers answer.

    It only looks at what the consumer knows anyway (aiokafka forgets the coordinator when a heartbeat fails;
    a fetch that is not answered is under way), so it sends nothing and nothing waits for it. `look` has to be
    called about once a second.

    Attributes:
        last_contact_ms: when Kafka was last seen to answer, ms since the epoch; None: never yet.
        lost_ms: since when it does not answer, ms since the epoch; None while it does.
        was_away_s: how long the last absence lasted, seconds.
    """

    def __init__(self, has_contact: Callable[[], bool], clock: Callable[[], float] = time.time) -> None:
        self._has_contact = has_contact
        self._clock = clock
        self._away = False
        self.last_contact_ms: int | None = None
        self.lost_ms: int | None = None
        self.was_away_s = 0.0

    @property
    def away_since_ms(self) -> int | None:
        """Since when Kafka does not answer, if it has not for longer than AWAY_AFTER_S; else None."""
        return self.lost_ms if self._away else None

    def look(self) -> Change | None:
        """Look once; says when Kafka has gone away, and when it is back: each once."""
        now_s = self._clock()
        if self._has_contact():
            self.last_contact_ms = int(now_s * 1000)
            return self._found(now_s)
        if self.lost_ms is None:
            self.lost_ms = self.last_contact_ms or int(now_s * 1000)
        if self._away or now_s - self.lost_ms / 1000 < AWAY_AFTER_S:
            return None
        self._away = True
        return "away"

    def _found(self, now_s: float) -> Change | None:
        if self.lost_ms is not None:
            self.was_away_s = now_s - self.lost_ms / 1000
        was_away, self._away, self.lost_ms = self._away, False, None
        return "back" if was_away else None


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
