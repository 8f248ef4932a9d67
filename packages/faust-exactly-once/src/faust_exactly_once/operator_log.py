"""The lines by which an operator follows a worker: partitions, ready, Kafka gone and back."""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

from .assigned_task import AssignedTask
from .broker_absences import BrokerChange
from .connectivity import Change, Connectivity
from .environment import Clock

logger = logging.getLogger(__package__)

STILL_EVERY_S: Final = 20.0


def ranges(partitions: Iterable[int]) -> str:
    """Partition numbers in few signs: "0-3,7"; "none" for none."""
    runs: list[list[int]] = []
    for number in sorted(partitions):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"


class AssignmentLines:
    """Says what each rebalance has changed, and when the worker is ready after it."""

    def __init__(self, clock: Clock = time) -> None:
        self._clock = clock
        self._has: frozenset[int] = frozenset()
        self._since = self._clock.monotonic()
        self._was_ready = False

    def changed(self, has: Collection[int]) -> None:
        """A rebalance is over; `has` are the partitions of this worker from now on."""
        gained, lost = set(has) - self._has, self._has - set(has)
        if self._was_ready:
            self._since = self._clock.monotonic()
        self._has = frozenset(has)
        logger.info(
            "partitions gained: %s; lost: %s; now here: %s", ranges(gained), ranges(lost), ranges(has),
            extra={"gained": ranges(gained), "lost": ranges(lost), "partitions": ranges(has), **_IN_MESSAGE},
        )  # fmt: skip

    def settled(self, assigned_tasks: Collection[AssignedTask], of: int) -> None:
        """Every task of this worker runs, or is known to be blocked; `of` tasks there are in all."""
        took_s = self._clock.monotonic() - self._since
        blocked = [assigned.partition for assigned in assigned_tasks if assigned.state != "running"]
        runs = [assigned.partition for assigned in assigned_tasks if assigned.state == "running"]
        since = "after the rebalance" if self._was_ready else "after the start"
        about = {"partitions": ranges(runs), "took_s": round(took_s, 1), **_IN_MESSAGE}
        if blocked:
            logger.warning(
                "not ready: partitions %s are blocked; %s run, %.1f s %s", ranges(blocked), ranges(runs),
                took_s, since, extra={**about, "blocked": ranges(blocked)},
            )  # fmt: skip
        elif runs:
            logger.info(
                "ready: partitions %s (%d of %d), %.1f s %s", ranges(runs), len(runs), of, took_s, since,
                extra=about,
            )  # fmt: skip
        else:
            logger.info("ready: no partition is left for this worker, it stands by", extra=about)
        self._was_ready = True


class KafkaLines:
    """One line when Kafka goes away, one when it is back, one now and then in between."""

    def __init__(
        self, connectivity: Connectivity, held_back: Callable[[], int],
        clock: Callable[[], float] = time.time, event_word: str = "event",
    ) -> None:  # fmt: skip
        self._connectivity = connectivity
        self._held_back = held_back
        self._event_word = event_word
        self._clock = clock
        self._held_before = 0
        self._said_s = 0.0

    def say(self, change: Change | None) -> None:
        """Called after each look at the connectivity with what changed."""
        since_ms = self._connectivity.away_since_ms
        if change == "away":
            self._said_s = self._clock()
            self._held_before = self._held_back()
            logger.error(
                "Kafka is not reachable: no %s is handled until it is back; this worker waits",
                self._event_word,
            )
        elif change == "back":
            logger.warning(
                "Kafka is reachable again after %.0f s, %d messages not shown",
                self._connectivity.was_away_s, self._hidden(), extra=_IN_MESSAGE,
            )  # fmt: skip
        elif since_ms is not None and self._clock() >= self._said_s + STILL_EVERY_S:
            self._said_s = self._clock()
            logger.warning(
                "Kafka is still not reachable, %.0f s, %d messages not shown",
                self._said_s - since_ms / 1000, self._hidden(), extra=_IN_MESSAGE,
            )  # fmt: skip

    def _hidden(self) -> int:
        return self._held_back() - self._held_before


def log_broker_changes(changes: Iterable[BrokerChange], here: Collection[int]) -> None:
    """One line for each broker that has gone away or is back; `here`: the partitions of this worker."""
    for one in changes:
        name = f"Kafka broker {one.number} ({one.address or 'address not known'})"
        fields = {"broker": one.number, "address": one.address or None, **_IN_MESSAGE}
        if one.change == "back":
            logger.warning("%s is reachable again after %.0f s", name, one.was_away_s, extra=fields)
            continue
        wait = ranges(one.leads & set(here))
        last = f"its last answer is {one.was_away_s:.0f} s old" if one.address else "it has never answered"
        logger.warning(
            "%s is not reachable, %s; partitions here that wait for it, or for another leader: %s",
            name, last, wait, extra={**fields, "partitions": wait},
        )  # fmt: skip


_IN_MESSAGE: Final = {"fields_in_message": True}
