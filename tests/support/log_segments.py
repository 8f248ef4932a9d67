"""Bytes of log segments as Kafka writes them, for tests of what reads them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from torture.segments import HEADER, Place

PRODUCER, EPOCH = 7, 3


def record(value: bytes) -> bytes:
    """A record with an empty key: length, attributes, time, offset, key, value, no headers."""
    return _record(b"", value)


def end_marker(*, commits: bool = True, coordinator_epoch: int = 4) -> bytes:
    """The control record that ends a transaction."""
    return _record(struct.pack(">hh", 0, commits), struct.pack(">hi", 0, coordinator_epoch))


def batch(first: int, records: bytes, flags: int = 0, producer: int = PRODUCER) -> bytes:
    """A whole batch of one record as it lies in a segment; flags 0x10: in a transaction, 0x20: its end."""
    length = HEADER.size - 12 + len(records)
    crc = zlib.crc32(records)  # Kafka's is another one, of more; here it need only differ with the records
    return HEADER.pack(first, length, 0, 2, crc, flags, 0, 0, 0, producer, EPOCH, 0, 1) + records


def decision(state: int, places: Sequence[Place], producer: int = PRODUCER) -> bytes:
    """What the coordinator logs of a transaction: a TransactionLogValue of version 1."""
    topics = b"".join(
        bytes([len(topic) + 1]) + topic.encode() + b"\2" + struct.pack(">i", partition) + b"\0"
        for topic, partition in places
    )
    head = struct.pack(">hqhib", 1, producer, EPOCH, 0, state)
    return record(head + bytes([len(places) + 1]) + topics + b"\0" * 17)


def _record(key: bytes, value: bytes) -> bytes:
    body = bytes([0, 0, 0, 2 * len(key)]) + key + bytes([2 * len(value)]) + value + b"\0"
    return _varint(len(body)) + body


def _varint(number: int) -> bytes:
    """A length of less than 8192, zigzag."""
    number *= 2
    return bytes([number]) if number < 128 else bytes([number & 0x7F | 0x80, number >> 7])
