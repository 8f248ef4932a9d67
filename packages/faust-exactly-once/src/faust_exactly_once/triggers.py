"""Triggers: records that a timer appends to a source topic of its task, outside any transaction."""

import asyncio
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaException, Producer


class TriggerWriter:
    """Appends triggers by partition number; they may be lost or doubled: handlers act on state (point 1)."""

    def __init__(self, client_config: Any, topic: str) -> None:
        self._config = {**client_config, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 2}
        self._topic = topic
        self._producer: Producer | None = None

    async def append(self, partition: int, triggers: Iterable[tuple[bytes, bytes]]) -> None:
        """Queue triggers (key, value) for a partition; what cannot be queued or sent is simply lost."""
        if self._producer is None:
            self._producer = Producer(self._config)
        for key, value in triggers:
            try:
                self._producer.produce(self._topic, value, key=key, partition=partition)
            except (BufferError, KafkaException):
                break  # the timer comes again
        self._producer.poll(0)
        await asyncio.sleep(0)

    def close(self) -> None:
        """Give up what is still queued."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()


Nudger = TriggerWriter  # its name before 0.1
