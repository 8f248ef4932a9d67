"""The clients of Kafka that the layer makes: librdkafka's, or those that somebody gives in their place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient


@dataclass(frozen=True, slots=True)
class Clients:
    """How each kind is made, from librdkafka's settings.

    Attributes:
        producer: a transactional producer, of one task.
        consumer: a reader of changelogs, of committed offsets; never a member of the group.
        admin: what questions to the cluster go through.
    """

    producer: Callable[[dict[str, Any]], Producer] = Producer
    consumer: Callable[[dict[str, Any]], Consumer] = Consumer
    admin: Callable[[dict[str, Any]], AdminClient] = AdminClient


LIBRDKAFKA: Final = Clients()
