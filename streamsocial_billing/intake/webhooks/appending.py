"""Appends gateway events, each confirmed by the broker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.intake.micro_batcher import MicroBatcher, Outcome
from streamsocial_billing.kafka.committed import KafkaProblem, said
from streamsocial_billing.kafka.producers import close_quietly
from streamsocial_billing.settings import GATEWAY_EVENTS, Settings

MOST: Final = 500
CONFIRMED_S: Final = 3.5
"""After so long librdkafka gives a record up; a record given up may still be there."""


def appending_events(settings: Settings) -> MicroBatcher[GatewayEvent]:
    """What appends gateway events, several at once.

    No transaction: a record that is there twice changes nothing, and an open one of a killed worker would
    stall the readers.
    """
    one = _Appending(settings)
    return MicroBatcher("gateway-events", one.append, one.close, most=MOST)


class _Appending:
    """Owns the producer, in the one thread that uses it."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic(GATEWAY_EVENTS)
        self._config: dict[str, Any] = settings.client_config() | {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "message.timeout.ms": round(CONFIRMED_S * 1000),
            "allow.auto.create.topics": False,
            "socket.timeout.ms": round(CONFIRMED_S * 1000),  # a broker that hangs holds up no later event
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
            "error_cb": _heard,
        }
        self._producer: Producer | None = None

    def append(self, events: Sequence[GatewayEvent]) -> list[Outcome]:
        """Send them, wait for each one's confirmation."""
        if self._producer is None:
            self._producer = Producer(self._config)
        producer = self._producer
        outcomes: list[Outcome] = [KafkaProblem("not confirmed")] * len(events)

        def delivered(number: int, error: KafkaError | None, _: Message) -> None:
            outcomes[number] = None if error is None else KafkaProblem(said(error))

        try:
            for number, event in enumerate(events):
                producer.produce(
                    self._topic, event.to_bytes(), event.user_id.encode(),
                    on_delivery=partial(delivered, number),
                )  # fmt: skip
            producer.flush(2 * CONFIRMED_S)
        except (KafkaException, BufferError, SystemError) as error:
            outcomes = [KafkaProblem(said(error)) if one is not None else None for one in outcomes]
        if any(outcomes):  # its order of records may be broken, and a fatal error does not go away
            self.close()
        return outcomes

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            close_quietly(producer)


def _heard(_: KafkaError) -> None:
    """Nothing to do: a fatal error also fails the deliveries."""
