"""The consumer's membership as the group coordinator knows it, in librdkafka's form."""

import struct
from dataclasses import dataclass

from confluent_kafka import Consumer

from .errors import SetupRefused


@dataclass(frozen=True, slots=True)
class Membership:
    """One generation of one member; offsets committed with it are refused once it is over (KIP-447)."""

    group: str
    generation: int
    member_id: str

    def metadata(self) -> bytes:
        """What `send_offsets_to_transaction` takes as group metadata.

        The layout is librdkafka's serialised ConsumerGroupMetadata, version 2 (rdkafka_cgrp.c,
        `rd_kafka_consumer_group_metadata_write`): magic, int32 generation in the machine's byte order,
        group id, member id, each ended by NUL, then 1 for "no group.instance.id".
        """
        return b"CGMDv2:%b%b\0%b\0\x01" % (
            struct.pack("=i", self.generation), self.group.encode(), self.member_id.encode(),
        )  # fmt: skip


def check_layout() -> None:
    """Compare our bytes with librdkafka's own for a consumer outside any group.

    Raises:
        SetupRefused: if this librdkafka writes another layout.
    """
    consumer = Consumer({"group.id": "layout-check", "bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    try:
        real: object = consumer.consumer_group_metadata()
    finally:
        consumer.close()
    ours = Membership("layout-check", -1, "").metadata()
    if real != ours:
        raise SetupRefused(
            f"this librdkafka lays out consumer group metadata as {real!r}, expected {ours!r}: "
            "install the confluent-kafka version of constraints.txt"
        )
