"""What real clients get of a topic with one partition: its committed records, a refusal to write."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from support.until import until

from faust_exactly_once.cluster import Cluster


def committed(bootstrap: str, topic: str, within_s: float) -> list[bytes]:
    """Every committed record, once no transaction is open: a commit is answered before its end is there."""
    cluster = Cluster({"bootstrap.servers": bootstrap}, within_s)

    def is_settled() -> bool:
        ends = cluster.log_ends([(topic, 0)])[topic, 0]
        return ends.stable == ends.high

    until(is_settled, f"no transaction is open on {topic}", within_s=60)
    return committed_now(bootstrap, topic, within_s)


def committed_now(bootstrap: str, topic: str, within_s: float) -> list[bytes]:
    """Every committed record, up to where a read_committed reader gets now, up to an open transaction."""
    reader = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "reader", "isolation.level": "read_committed",
        "enable.partition.eof": True, "enable.auto.commit": False,
    })  # fmt: skip
    try:
        reader.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        while True:
            message = reader.poll(within_s)
            assert message is not None, f"{topic} has no end"
            error = message.error()
            if error is None:
                found.append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                return found
    finally:
        reader.close()


def refusal(bootstrap: str, topic: str, value: bytes = b"not to be written") -> int | None:
    """The error code that a producer which wants all replicas gets at its first attempt; None for success.

    Only what is refused with NOT_ENOUGH_REPLICAS was not written: what was not answered in time may be.
    """
    producer = Producer(
        {"bootstrap.servers": bootstrap, "acks": "all", "retries": 0, "message.timeout.ms": 8000,
         "log_level": 0},
        logger=None,
    )  # fmt: skip
    codes: list[int | None] = []
    producer.produce(
        topic, value, partition=0,
        on_delivery=lambda error, _: codes.append(None if error is None else error.code()),
    )  # fmt: skip
    assert 0 == producer.flush(60)
    return codes[0]
