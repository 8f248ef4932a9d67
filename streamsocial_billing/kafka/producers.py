"""The librdkafka producers beside the workers': how they are set, how they end."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from streamsocial_billing.settings import Settings

silent: Final = logging.getLogger(f"{__name__}.librdkafka")
silent.disabled = True


def producer_config(settings: Settings, transactional_id: str) -> dict[str, Any]:
    """What every producer beside the workers is made with.

    A killed one's open transaction stalls every reader of its topics: 3 s bound that, and each request, as
    librdkafka takes its `socket.timeout.ms` from it. The short back-off is for the first record after a
    commit, nearly always answered with a retriable error.
    """
    return settings.client_config() | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": 3000,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 2,
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 100,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 0,
        "logger": silent,  # librdkafka says that an id was fenced on stderr, whatever the log level is
        # without it confluent-kafka raises a fatal error in the middle of a callback, as SystemError
        "error_cb": _heard,
    }


def _heard(_: KafkaError) -> None:
    """Nothing to do: a fatal error also fails the deliveries and every later call, where it is handled."""


def aborted(producer: Producer, within_s: float) -> bool:
    """True if the broker confirmed the abort; if not, InitProducerId of the next producer aborts.

    librdkafka purges what is queued, and waits for what is in flight.
    """
    try:
        producer.abort_transaction(within_s)
    except (KafkaException, SystemError):
        return False
    return True


def close_quietly(producer: Producer) -> None:
    """Close a producer; that a fenced one cannot abort is no news, the broker has done it."""
    with warnings.catch_warnings(), suppress(KafkaException, SystemError):
        warnings.simplefilter("ignore", RuntimeWarning)
        producer.close()
