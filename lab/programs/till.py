"""What the textbook consumers share: the consumer, the gateway's client, the producer of results.

When each is used, which is what makes a guarantee, is said in the programs alone.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from streamsocial_billing.settings import PAYMENTS, RESULTS, Settings
from torture.orders import Orders

ORDERS: Final = "LAB_ORDERS"
"""Environment variable: the file that names a point at which this process has to end."""
BATCH: Final = 20
REPLY_WITHIN_S: Final = 3.0


class NoReply(Exception):
    """Raised when the gateway did not answer: the card may be charged, or not."""


class Till:
    """One textbook consumer."""

    def __init__(self) -> None:
        settings = Settings.from_environment(os.environ)
        self.probe = Orders(Path(os.environ[ORDERS])).probe
        self._results = settings.topic(RESULTS)
        gateway = urlsplit(settings.simulator_url)
        self._gateway = http.client.HTTPConnection(gateway.netloc, timeout=REPLY_WITHIN_S)
        self._producer = Producer(settings.client_config() | {
            "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 2,
        })  # fmt: skip
        self._consumer = Consumer(settings.client_config() | {
            "group.id": settings.app_id, "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "session.timeout.ms": settings.session_timeout_s * 1000,
            "heartbeat.interval.ms": settings.session_timeout_s * 250,
        })  # fmt: skip
        self._consumer.subscribe([settings.topic(PAYMENTS)], on_assign=_say_assigned)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Payments as they come, up to BATCH at a time, until SIGTERM."""
        try:
            while True:
                found = [one for one in self._consumer.consume(BATCH, 0.1) if one.error() is None]
                if found:
                    yield [orjson.loads(one.value() or b"") for one in found]
        finally:
            self._producer.flush(5)
            self._consumer.close()

    def commit(self) -> None:
        """Commit the offsets of what was taken; after a rebalance the new owner takes it again."""
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            print(f"commit refused: {error.args[0].str()}", flush=True)

    def charge(self, payment: dict[str, Any], idempotency_key: str) -> dict[str, Any]:
        """Charge the card; the gateway's charge. Raises NoReply."""
        body = orjson.dumps({
            "amount": payment["amount_minor"], "currency": payment["currency"],
            "payment_method": payment["payment_method"],
            "metadata": {
                "ref": idempotency_key, "payment_id": payment["payment_id"], "user_id": payment["user_id"],
            },
        })  # fmt: skip
        headers = {"Idempotency-Key": idempotency_key, "Content-Type": "application/json"}
        try:
            self._gateway.request("POST", "/v1/charges", body, headers)
            reply = self._gateway.getresponse()
            charge: dict[str, Any] = orjson.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._gateway.close()
            raise NoReply(type(error).__name__) from None
        return charge

    def insist(self, payment: dict[str, Any], new_key: Callable[[], str]) -> dict[str, Any]:
        """Charge until there is a reply, each time under the key that `new_key` gives."""
        while True:
            try:
                return self.charge(payment, new_key())
            except NoReply:
                continue  # no payment may be lost

    def answer(self, payment: dict[str, Any], status: str) -> None:
        """Write a result; `flush` waits until it is there."""
        result = payment | {"status": status, "processed_at": time.time_ns() // 1_000_000}
        self._producer.produce(self._results, orjson.dumps(result), key=payment["user_id"].encode())

    def flush(self) -> None:
        """Return when every result is on its topic."""
        self._producer.flush(10)


def status_of(charge: dict[str, Any]) -> str:
    """The status of a result for what the gateway answered."""
    return "succeeded" if charge.get("status") == "succeeded" else "declined"


def _say_assigned(_: Consumer, partitions: list[TopicPartition]) -> None:
    print(f"assigned {sorted(one.partition for one in partitions)}", flush=True)


def _leave(number: int, _: object) -> None:
    sys.exit(0)
