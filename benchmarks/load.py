"""The payments that benchmarks send: the same for the same seed."""

import random
import time
from collections import deque
from collections.abc import Iterator

from confluent_kafka import Producer

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.settings import PAYMENTS, Settings

PRODUCTS = ("subscription", "upgrade", "gift")


def payments(count: int, users: int, resent: float, seed: int) -> Iterator[PaymentEvent]:
    """`count` events over `users` users; a share of `resent` repeats one of the 5 000 before it."""
    rng = random.Random(seed)  # noqa: S311 - a load, not a secret
    recent: deque[PaymentEvent] = deque(maxlen=5000)
    for number in range(count):
        if recent and rng.random() < resent:
            yield recent[rng.randrange(len(recent))]
            continue
        event = PaymentEvent(
            payment_id=f"pay_{seed}_{number}", user_id=f"user_{rng.randrange(users)}",
            product=rng.choice(PRODUCTS), amount_minor=rng.randrange(100, 10_000), currency="USD",
            payment_method="pm_card_visa", gateway="simulated", requested_at=int(time.time() * 1000),
        )  # fmt: skip
        recent.append(event)
        yield event


def preload(settings: Settings, count: int, users: int, seed: int, resent: float = 0.1) -> int:
    """Append events without transactions, as fast as it goes.

    Returns:
        how many distinct payments are among them.
    """
    producer = Producer({
        **settings.client_config(), "partitioner": "murmur2_random", "linger.ms": 20,
        "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000,
    })  # fmt: skip
    distinct = set()
    for event in payments(count, users, resent, seed):
        distinct.add((event.user_id, event.payment_id))
        producer.produce(settings.topic(PAYMENTS), event.to_bytes(), event.user_id.encode())
        producer.poll(0)
    producer.flush()
    return len(distinct)
