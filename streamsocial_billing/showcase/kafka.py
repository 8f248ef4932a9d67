"""Our own Kafka as a part that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from broker import LocalBroker
from streamsocial_billing.showcase.causes import how_it_ended
from torture.markers import BETWEEN_LOOKS_S, Repair

MEND_FOR_S: Final = 60.0
"""How long after a restart the log is looked at; by then every transaction of before has timed out."""


class OwnKafka:
    """The local broker. One that was killed may have forgotten ends of transactions (torture/markers.py)."""

    name = "Kafka"

    def __init__(self, local: LocalBroker, say: Callable[[str], None]) -> None:
        self._local = local
        self._say = say
        self._repair: Repair | None = None
        self._next_look = self._last_look = 0.0

    @property
    def running(self) -> bool:
        """True while the Java process lives."""
        return self._local.running

    def start_again(self) -> None:
        """Return once it answers."""
        self._local.kill()  # lets go of what the dead process held
        self._local.start()
        self._repair = Repair(self._local.data_dir / "log", self._local.port)
        self._last_look = time.monotonic() + MEND_FOR_S

    def answers(self) -> bool:
        """It has answered before `start_again` returned."""
        return self.running

    def may_start(self) -> bool:
        """It needs nobody."""
        return True

    def why(self) -> str:
        """How it ended."""
        return how_it_ended(self.name, self._local.exit_code, self._local.log_file, 0)

    def mend(self) -> None:
        """Write what it has forgotten; without effect but for a while after a restart."""
        now = time.monotonic()
        if self._repair is None or now < self._next_look or not self.running:
            return
        self._next_look = now + BETWEEN_LOOKS_S
        try:
            written = len(self._repair.run_once())
        except OSError:
            return  # it is on its way down, or up: at the next look
        if written:
            self._say(f"Kafka had forgotten the end of {written} transactions: written (docs/torture.md)")
        if now > self._last_look:
            self._repair = None
