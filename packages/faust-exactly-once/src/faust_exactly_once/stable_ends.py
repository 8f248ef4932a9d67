"""Waits until no transaction is open at the ends of logs."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from .environment import Clock, Deadline
from .errors import KafkaUnavailable
from .facts import TP, LogEnds

HANGING_S = 30.0  # how long one opening of a task waits for a foreign transaction before it begins anew
SAY_EVERY_S = 5.0


class Asked(Protocol):
    """Whoever answers for the logs."""

    def log_ends(self, partitions: Iterable[TP]) -> dict[TP, LogEnds]:
        """First offset, last stable offset, high watermark of each partition, just now."""


def wait_stable(
    cluster: Asked, partitions: Sequence[TP], say: Callable[[str], None], *, also: Sequence[TP] = (),
    clock: Clock = time,
) -> dict[TP, LogEnds]:  # fmt: skip
    """Log ends once nothing is pending: after the fence the last stable offset must be the high watermark.

    `also` are asked in the same round, pending or not.

    Raises:
        KafkaUnavailable: a foreign transaction hangs; its partition is named (point 8).
    """
    deadline = Deadline(clock, HANGING_S)
    said, said_at = "", 0.0
    while True:
        ends = cluster.log_ends([*partitions, *also])
        pending = [tp for tp in partitions if ends[tp].stable != ends[tp].high]
        hanging = ", ".join(f"{topic}-{number} at {ends[topic, number].stable}" for topic, number in pending)
        if not hanging:
            return ends
        if deadline.left_s() < 0:
            raise KafkaUnavailable(f"an open transaction of another producer blocks {hanging}")
        if hanging != said or clock.monotonic() > said_at + SAY_EVERY_S:
            said, said_at = hanging, clock.monotonic()
            say(f"waiting for an open transaction on {hanging}")
        clock.sleep(0.05)
