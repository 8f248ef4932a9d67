"""The view `/reconciliation`: what the last run found, with its metrics.

The topic is read outside the consumer group, by a thread, and only when somebody asks: a broker that does not
answer holds up no worker. What is kept is bounded: a run puts at most PUBLISH_MOST breaks on the topic.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson
from aiohttp.web import Response
from faust.web import Request, View
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from faust_exactly_once import Metrics
from streamsocial_billing.intake.http_replies import Reply, later, no_access, refusal
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem
from streamsocial_billing.reconciliation.breaks import MEANINGS, OPEN_CLASSES
from streamsocial_billing.reconciliation.publish import RUN_KEY
from streamsocial_billing.settings import BREAKS, Settings
from streamsocial_billing.web.access import may_read
from streamsocial_billing.web.html import for_people
from streamsocial_billing.web.responding import respond

logger = logging.getLogger(__name__)

SHOW_MOST: Final = 500
"""Breaks in an answer, the oldest first; the run's record counts all."""
FRESH_S: Final = 5.0
"""How old what was read may be before it is read on."""
ANSWER_WITHIN_S: Final = 10.0


class LastRun:
    """The content of `reconciliation-breaks`, read on when it is asked for and older than FRESH_S."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic(BREAKS)
        self._settings = settings
        self._log: CommittedLog | None = None
        self._places: list[tuple[str, int]] = []
        self._next: dict[tuple[str, int], int] = {}
        self._records: dict[bytes, bytes] = {}
        self._one = threading.Lock()
        self.read_at = 0.0
        self.run: dict[str, Any] | None = None
        self.breaks: list[dict[str, Any]] = []

    @property
    def stale(self) -> bool:
        """True if it has to be read on."""
        return time.monotonic() - self.read_at > FRESH_S or not self.read_at

    def read_on(self) -> None:
        """Read what is new; raises KafkaProblem. One thread at a time reads, another one waits for it."""
        with self._one:
            if not self.stale:
                return
            if self._log is None:
                self._log = CommittedLog(self._settings)
                count = self._log.partitions([self._topic])[self._topic]
                self._places = [(self._topic, partition) for partition in range(count)]
            ends = self._log.ends(self._places)
            span = {place: (self._next.get(place, start), end) for place, (start, end) in ends.items()}
            for message in self._log.read(span):
                self._fold(message.key() or b"", message.value())
            self._next.update({place: end for place, (_, end) in span.items()})
            self._take()
            self.read_at = time.monotonic()

    def read_beside(self) -> threading.Thread:
        """Read on in a thread that nobody has to wait for; a failure leaves what is known."""
        thread = threading.Thread(target=self._read_quietly, name="reconciliation", daemon=True)
        thread.start()
        return thread

    def collect(self) -> Iterator[Metric]:
        """What Prometheus gets: what was known, while newer records are fetched for the next time."""
        if self.stale and not self._one.locked():
            self.read_beside()
        yield from metrics_of(self.run)

    def _fold(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._records.pop(key, None)
        else:
            self._records[key] = value

    def _take(self) -> None:
        """What is shown, replaced as a whole: a reader beside sees the old or the new."""
        records = {key: orjson.loads(value) for key, value in self._records.items()}
        self.run = records.pop(RUN_KEY.encode(), None)
        self.breaks = sorted(records.values(), key=lambda one: (one["since"], one["id"]))

    def _read_quietly(self) -> None:
        try:
            self.read_on()
        except KafkaProblem as problem:
            logger.info("reconciliation: %s", problem)


def metrics_of(run: dict[str, Any] | None) -> Iterator[Metric]:
    """Open breaks and money by class, the oldest break; nothing before the first run."""
    name = "billing_reconciliation"
    count = GaugeMetricFamily(f"{name}_open_breaks", "Open breaks of the last run.", labels=["class"])
    money = GaugeMetricFamily(
        f"{name}_open_minor_units", "Money at stake in them.", labels=["class", "currency"]
    )
    oldest = GaugeMetricFamily(f"{name}_oldest_break_timestamp_seconds", "Since when the oldest is; 0: none.")
    as_of = GaugeMetricFamily(f"{name}_as_of_timestamp_seconds", "Up to when the last run saw.")
    if run is None:
        return
    since = []
    for class_ in sorted(OPEN_CLASSES):
        found = run["breaks"].get(class_, {"count": 0, "money": {}, "oldest": None})
        count.add_metric([class_], found["count"])
        for currency, amount in found["money"].items():
            money.add_metric([class_, currency], amount)
        since += [found["oldest"]] if found["oldest"] is not None else []
    oldest.add_metric([], min(since, default=0) / 1000)
    as_of.add_metric([], run["as_of"] / 1000)
    yield from (count, money, oldest, as_of)


def page_of_reconciliation(app: Any, settings: Settings, metrics: Metrics) -> None:
    """`/reconciliation`: the last run with its open breaks; they name users, so it is read like user data."""
    last = LastRun(settings)
    metrics.registry.register(last)

    @app.page("/reconciliation")  # type: ignore[untyped-decorator]
    async def reconciliation(view: View, request: Request) -> Response:
        return for_people(request, respond(await answer(request)), "reconciliation.html", meanings=MEANINGS)

    async def answer(request: Any) -> Reply:
        if not may_read(request, settings.api_token):
            return no_access()
        if last.stale:
            await asyncio.to_thread(last.read_beside().join, ANSWER_WITHIN_S)
        if not last.read_at:
            return later("kafka_unavailable", "Kafka could not be read yet")
        if last.run is None:
            return refusal(404, "no_run_yet", "none yet: run streamsocial-billing reconcile")
        shown = last.breaks[:SHOW_MOST]
        return Reply(200, {"run": last.run, "listed": len(shown), "breaks": shown})
