"""The payments that every peer gets: the same for the same seed, spread over partitions as Java does."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Producer

USERS: Final = 20_000
RESENT: Final = 0.10
KINDS: Final = ("subscription", "gift", "upgrade")
FILLER: Final = "x" * 46
"""The fields of the job give about 190 bytes; with one that every peer ignores it is 250, as ours."""


class Load:
    """Payments one by one; a tenth is sent again (same id, same user). `ours`: with our field names."""

    def __init__(self, seed: int, *, ours: bool) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._ours = ours
        self._recent: deque[dict[str, Any]] = deque(maxlen=5000)
        self.sent = 0
        self.distinct = 0
        self.amount_minor = 0

    def next(self) -> dict[str, Any]:
        """The next one."""
        rng, now = self._rng, int(time.time() * 1000)
        self.sent += 1
        if self._recent and rng.random() < RESENT:
            return self._recent[rng.randrange(len(self._recent))] | {"requested_at": now}
        payment = self._new(now)
        self._recent.append(payment)
        self.distinct += 1
        self.amount_minor += payment["amount_minor"]
        return payment

    def forget(self) -> None:
        """Send nothing again that went before."""
        self._recent.clear()

    def _new(self, now: int) -> dict[str, Any]:
        rng = self._rng
        payment = {
            "payment_id": "pay_" + uuid.UUID(int=rng.getrandbits(128), version=4).hex,
            "user_id": f"user_{rng.randrange(USERS)}", "amount_minor": 499, "currency": "USD",
            "requested_at": now,
        }  # fmt: skip
        kind = rng.choice(KINDS)
        if self._ours:
            return payment | {"product": kind, "payment_method": "pm_card_visa", "gateway": "simulated"}
        return payment | {"kind": kind, "method": "card_visa", "ref": FILLER}


class Sender:
    """Produces payments to one topic."""

    def __init__(self, bootstrap: str, topic: str, linger_ms: int) -> None:
        self._topic = topic
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 2_000_000, "queue.buffering.max.kbytes": 2_000_000,
            "linger.ms": linger_ms, "log_level": 3,
        })  # fmt: skip

    def send(self, payment: Mapping[str, Any]) -> None:
        """Without waiting."""
        self._producer.produce(self._topic, json.dumps(payment).encode(), payment["user_id"].encode())
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all are on the topic."""
        self._producer.flush()
