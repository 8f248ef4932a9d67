"""Knows whether Kafka as a whole answers this worker, since when it does not."""

import time
from collections.abc import Callable
from typing import Final, Literal

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
