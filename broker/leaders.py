"""Which broker leads what: a partition, a transactional id, a consumer group."""

from __future__ import annotations

from confluent_kafka import KafkaException

from broker.clients import fresh_client

TRANSACTIONS = "__transaction_state"
GROUPS = "__consumer_offsets"


def leader(bootstrap: str, topic: str, partition: int, timeout_s: float = 5.0) -> int | None:
    """Id of the broker that leads a partition; None: no leader, no such partition, or no answer."""
    found = partitions(bootstrap, topic, timeout_s).get(partition, -1)
    return None if found < 0 else found


def transaction_coordinator(bootstrap: str, transactional_id: str) -> int | None:
    """Id of the broker that decides about this id's transactions; None while nobody says."""
    return _coordinator(bootstrap, TRANSACTIONS, transactional_id)


def group_coordinator(bootstrap: str, group: str) -> int | None:
    """Id of the broker that holds this group's members and offsets; None while nobody says."""
    return _coordinator(bootstrap, GROUPS, group)


def partitions(bootstrap: str, topic: str, timeout_s: float = 5.0) -> dict[int, int]:
    """The leaders of a topic's partitions, -1 for none; empty while nobody knows the topic."""
    client = fresh_client(bootstrap)
    try:
        found = client.list_topics(topic, timeout=timeout_s).topics[topic].partitions
    except KafkaException:
        return {}
    return {number: one.leader for number, one in found.items()}


def java_hash(text: str) -> int:
    """`String.hashCode` as Kafka makes it positive (`Utils.abs`: the lowest number becomes 0)."""
    value = 0
    units = text.encode("utf-16-be")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >= 1 << 31 else value
    return 0 if signed == -(1 << 31) else abs(signed)


def _coordinator(bootstrap: str, topic: str, name: str) -> int | None:
    """The leader of the partition that keeps what belongs to a name."""
    leaders = partitions(bootstrap, topic)
    if not leaders:
        return None
    found = leaders[java_hash(name) % len(leaders)]
    return None if found < 0 else found
