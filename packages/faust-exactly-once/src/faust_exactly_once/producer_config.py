"""The settings of a transactional producer."""

import logging
from collections.abc import Callable
from typing import Any

from .options import Options

# How long a producer waits for one answer before it takes the broker for dead. Two fit into a record's time:
# the request to a frozen leader, then one for metadata, which may go to the frozen broker, too.
REQUEST_MS = 4000

librdkafka_logger = logging.getLogger("librdkafka")
librdkafka_logger.setLevel(logging.ERROR)  # its warnings announce retries that it makes by itself
INFO = 6  # of syslog; librdkafka says so of a connection that the other side closed while it was idle


class Listening:
    """The logger of a producer: passes lines on, lets somebody hear each; called in its `poll`, `flush`."""

    def __init__(self, hears: Callable[[str], None]) -> None:
        self._hears = hears

    def log(self, level: int, text: str, *parts: object) -> None:
        """Take a line, as `logging.Logger` does."""
        self._hears(text % parts)
        if level > logging.INFO:
            librdkafka_logger.log(level, text, *parts)


def producer_config(
    options: Options, transactional_id: str, hears: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """librdkafka's settings for the producer of a task; `hears` gets each line of its log."""
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
        "logger": Listening(hears),
        "log_level": INFO,
    }
