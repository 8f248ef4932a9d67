"""The producer of tests that send by themselves."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer


def idempotent_producer(bootstrap: str, more: dict[str, Any] | None = None) -> Producer:
    """Each record is there once, in its order, in the partition of its key as Java's clients choose it.

    Without idempotence one whose answer is late, on a busy machine, is there twice. `more`: other settings.
    """
    return Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random",
        **(more or {}),
    })  # fmt: skip
