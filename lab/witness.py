"""Two readers of the same results: one sees committed records, one whatever lies in the log.

Both add up revenue as any analyst would: `succeeded`, no replay. What they differ by was never true.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, TopicPartition

from lab.stage import PARTITIONS
from streamsocial_billing.domain.statuses import FINAL
from streamsocial_billing.settings import RESULTS, Settings

COMMITTED: Final = "read_committed"
UNCOMMITTED: Final = "read_uncommitted"
POLL_S: Final = 0.1


class Reader:
    """Follows the results of one guarantee in a thread; what it has read so far can be looked at any time.

    results   (seconds since the epoch when it was read, the record), in the order of reading
    revenue   cents
    first_at  when the first result of a payment_id was read
    final     payment_ids with a final result
    """

    def __init__(self, settings: Settings, isolation: str) -> None:
        self.isolation = isolation
        self.results: list[tuple[float, dict[str, Any]]] = []
        self.revenue = 0
        self.first_at: dict[str, float] = {}
        self.final: set[str] = set()
        self._config = settings.client_config() | {
            "group.id": f"{settings.app_id}-{isolation}", "enable.auto.commit": False,
            "isolation.level": isolation, "fetch.wait.max.ms": 20, "log_level": 0,
        }  # fmt: skip
        self._topic = settings.topic(RESULTS)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Begin at the first record."""
        self._thread.start()

    def stop(self) -> None:
        """Read no further."""
        self._ends.set()
        self._thread.join(10)

    def _follow(self) -> None:
        consumer = Consumer(self._config)
        consumer.assign([TopicPartition(self._topic, number, 0) for number in range(PARTITIONS)])
        try:
            while not self._ends.is_set():
                for message in consumer.consume(500, POLL_S):
                    if message.error() is None:
                        self._take(orjson.loads(message.value() or b"{}"))
        finally:
            consumer.close()

    def _take(self, result: dict[str, Any]) -> None:
        now_s = time.time()
        self.results.append((now_s, result))
        self.first_at.setdefault(result["payment_id"], now_s)
        if result["status"] in FINAL:
            self.final.add(result["payment_id"])
        if result["status"] == "succeeded" and not result.get("replayed", False):
            self.revenue += result["amount_minor"]


class Witness:
    """Both readers; for a `with`."""

    def __init__(self, settings: Settings) -> None:
        self.committed = Reader(settings, COMMITTED)
        self.uncommitted = Reader(settings, UNCOMMITTED)

    def __enter__(self) -> Witness:
        self.committed.start()
        self.uncommitted.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.committed.stop()
        self.uncommitted.stop()
