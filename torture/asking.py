"""Asks Kafka again for as long as a cluster under fire may need to answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from confluent_kafka import KafkaException

from faust_exactly_once.errors import KafkaUnavailable
from streamsocial_billing.kafka.committed import KafkaProblem

T = TypeVar("T")

PASSES: Final = (KafkaException, KafkaUnavailable, KafkaProblem, TimeoutError, OSError)
PAUSE_S: Final = 0.2


def again(question: Callable[[], T], within_s: float) -> T:
    """The first answer; raises what the last attempt raised if none came within so many seconds.

    Each attempt makes the clients that it needs: one that knows the cluster may hold on to brokers of before.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            return question()
        except PASSES:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)
