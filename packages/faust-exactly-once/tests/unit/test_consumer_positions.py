"""What aiokafka is left to do about the position of a partition that was just assigned: nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.structs import OffsetAndMetadata

from faust_exactly_once.consumer_thread import ConsumerThread

NO_OFFSET = OffsetAndMetadata(-1, "")
PLACES = [TopicPartition("orders", 0), TopicPartition("orders", 1)]


class Thread(ConsumerThread):
    """A consumer thread without its thread: what it is told of an assignment, it does here."""

    def __init__(self, consumer: Any) -> None:
        self._epochs, self._consumer = {}, consumer
        self.app: Any = SimpleNamespace(conf=SimpleNamespace(id="shop"))

    def _ensure_consumer(self) -> Any:
        return self._consumer


async def test_the_fetcher_outlives_two_looks_at_a_group_without_offsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Assigned, paused, the coordinator lost and found: no error is set for a partition, so none twice."""
    consumer = aiokafka.AIOKafkaConsumer(group_id="shop", auto_offset_reset="none")
    subscriptions = consumer._subscription
    monkeypatch.setattr(Fetcher, "_fetch_requests_routine", lambda self: asyncio.sleep(0))
    fetcher = consumer._fetcher = Fetcher(consumer._client, subscriptions, auto_offset_reset="none")
    consumer._coordinator = SimpleNamespace(generation=1, member_id="worker-1")
    subscriptions.subscribe(topics={"orders"})
    subscriptions.assign_from_subscribed(set(PLACES))
    assignment = subscriptions.subscription.assignment

    Thread(consumer).take_over(PLACES)
    for _ in range(2):
        look = asyncio.create_task(fetcher._update_fetch_positions(assignment, 1, PLACES))
        while not look.done():
            for place in PLACES:
                assignment.state_value(place).update_committed(NO_OFFSET)
            await asyncio.sleep(0)
        look.result()

    await fetcher.close()
    consumer._closed = True  # there is no connection to close
    assert {} == dict(fetcher._records)
    assert PLACES == sorted(consumer.paused())
