"""The settings of a transactional producer."""

import logging
from typing import Any

from confluent_kafka import KafkaError

from .options import Options

# How long a producer waits for one answer before it takes the broker for dead. Two fit into a record's time:
# the request to a frozen leader, then one for metadata, which may go to the frozen broker, too.
REQUEST_MS = 4000

librdkafka_logger = logging.getLogger("librdkafka")
librdkafka_logger.setLevel(logging.ERROR)  # its warnings announce retries that it makes by itself


def producer_config(options: Options, transactional_id: str) -> dict[str, Any]:
    """librdkafka's settings for the producer of a task."""
    return {
        **options.client_config,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": options.transaction_timeout_ms,
        "message.timeout.ms": int(options.request_timeout_s * 1000),
        "partitioner": "murmur2_random",  # librdkafka's default would put a key elsewhere than Java or Faust
        "linger.ms": 2,
        "retry.backoff.ms": 5,  # the first produce after a commit is always retried: the default costs 100 ms
        "retry.backoff.max.ms": 100,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 1000,
        # librdkafka's own bounds, 10 to 60 s, are how long one frozen broker would hold up a commit
        "socket.connection.setup.timeout.ms": 3000,
        "api.version.request.timeout.ms": 3000,
        # librdkafka refuses one above the transaction's
        "socket.timeout.ms": min(REQUEST_MS, options.transaction_timeout_ms),
        "queue.buffering.max.messages": 1_000_000,
        "message.max.bytes": options.max_record_bytes,
        "error_cb": _ignore,
        "logger": librdkafka_logger,
        "log_level": 4,
    }


def _ignore(error: KafkaError) -> None:
    """Nothing: the call that meets the error raises it."""
