"""A Kafka that is not ours to restart: asked all the time whether it is there."""

from __future__ import annotations

import threading
import time
from typing import Final

from confluent_kafka import KafkaException

from faust_exactly_once import Cluster, KafkaUnavailable
from streamsocial_billing.settings import Settings

ASK_EVERY_S: Final = 1.0
ANSWERS_WITHIN_S: Final = 3.0


class ForeignKafka:
    """`is_there` is what it answered last; a thread asks, as an answer that does not come takes its time."""

    def __init__(self, settings: Settings) -> None:
        self.is_there = True
        self._settings = settings
        self._gone_at = 0.0
        self._said = True
        self._closed = threading.Event()
        threading.Thread(target=self._ask_on, name="foreign-kafka", daemon=True).start()

    def news(self) -> str | None:
        """One line when it is gone, or back; None where nothing has changed since the last one."""
        there = self.is_there
        if there == self._said:
            return None
        self._said = there
        where = f"Kafka at {self._settings.bootstrap}"
        if there:
            return f"{where} answers again after {time.monotonic() - self._gone_at:.0f} s"
        self._gone_at = time.monotonic()
        return f"{where} does not answer; it is yours, so it is not started again here: payments wait for it"

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _ask_on(self) -> None:
        cluster = Cluster(self._settings.client_config(), ANSWERS_WITHIN_S)
        while not self._closed.wait(ASK_EVERY_S):
            try:
                cluster.id()
                self.is_there = True
            except (KafkaUnavailable, KafkaException):
                self.is_there = False
