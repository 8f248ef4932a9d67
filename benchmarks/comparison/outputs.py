"""The outputs of a run as a `read_committed` consumer sees them; what they and the changelog add up to."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.comparison.offered import Load
from benchmarks.comparison.peers import PARTITIONS, PEERS, Job
from benchmarks.comparison.plan import OURS
from benchmarks.comparison.records import Books, Changelog
from streamsocial_billing.settings import METRICS, RESULTS

SETTLED_AFTER_S = 2.0
ANSWERS_WITHIN_S = 10.0


class Outputs:
    """Results, metrics so far, and when each batch of results came."""

    def __init__(self, job: Job) -> None:
        self._results = job.topic(RESULTS)
        self.results: list[bytes] = []
        self.metrics: list[bytes] = []
        self.arrivals: list[tuple[float, int]] = []
        self._reader = Consumer({
            "bootstrap.servers": job.bootstrap, "group.id": f"bench-{job.suffix}",
            "enable.auto.commit": False, "isolation.level": "read_committed", "fetch.wait.max.ms": 500,
        })  # fmt: skip
        self._reader.assign([
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in (self._results, job.topic(METRICS)) for number in range(PARTITIONS)
        ])  # fmt: skip

    def has(self, count: int) -> bool:
        """True once there are so many results and as many metrics."""
        return len(self.results) >= count and len(self.metrics) >= count

    def read(self, most: int, within_s: float) -> bool:
        """Take what arrives; True if anything did."""
        messages = self._reader.consume(most, within_s)
        now = time.time()
        came = sum(self._take(message) for message in messages if not message.error())
        if came:
            self.arrivals.append((now, came))
        return bool(messages)

    def read_one(self, within_s: float) -> bytes | None:
        """The next result; None if none came within the time, or a metric did."""
        message = self._reader.poll(within_s)
        if message is None or message.error() or not self._take(message):
            return None
        return self.results[-1]

    def settle(self) -> None:
        """Also take what should not be there: until nothing has come for a while."""
        ends = time.time() + SETTLED_AFTER_S
        while time.time() < ends:
            if self.read(1000, 0.2):
                ends = time.time() + SETTLED_AFTER_S

    def close(self) -> None:
        """Leave."""
        self._reader.close()

    def _take(self, message: Message) -> bool:
        """Keep it; True if it is a result."""
        is_result = message.topic() == self._results
        (self.results if is_result else self.metrics).append(message.value() or b"{}")
        return is_result


def is_charge(record: dict[str, Any]) -> bool:
    """True for the first result, or metric, of a payment: by our words or by those of the peers."""
    return record["status"] == "charged" or (record["status"] == "succeeded" and not record["replayed"])


def books(
    load: Load, results: Iterable[bytes], metrics: Iterable[bytes], changelog: Changelog | None
) -> Books:
    """What came out, counted."""
    told = [json.loads(value) for value in results]
    charged = Counter(one["payment_id"] for one in told if is_charge(one))
    measured = [json.loads(value) for value in metrics]
    return Books(
        events=load.sent, distinct=load.distinct, amount_minor=load.amount_minor, results=len(told),
        charged_ids=len(charged), charged_twice=sum(1 for count in charged.values() if count > 1),
        duplicates=len(told) - charged.total(), metrics=len(measured),
        metrics_charged=sum(map(is_charge, measured)), changelog=changelog,
    )  # fmt: skip


def changelog(job: Job) -> Changelog | None:
    """The last committed value of each user, added up; None where the peer has none that can be read."""
    ending = PEERS[job.configuration.peer].changelog
    if ending is None:
        return None
    known = AdminClient({"bootstrap.servers": job.bootstrap}).list_topics(timeout=ANSWERS_WITHIN_S).topics
    last: dict[bytes, bytes] = {}
    for topic in (name for name in known if job.suffix in name and name.endswith(ending)):
        for message in read_all(job.bootstrap, topic, len(known[topic].partitions)):
            last[message.key() or b""] = message.value() or b""
    return add_up(last.values(), ours=job.configuration.peer == OURS)


def add_up(states: Iterable[bytes], *, ours: bool) -> Changelog:
    """The charges, duplicates and money of users' states."""
    keys = unreadable = charges = duplicates = money = 0
    for value in states:
        keys += 1
        try:
            counted = _of_ours(json.loads(value)) if ours else _of_peer(json.loads(value))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        charges, duplicates, money = charges + counted[0], duplicates + counted[1], money + counted[2]
    return Changelog(keys, unreadable, charges, duplicates, money)


def _of_ours(state: dict[str, Any]) -> tuple[int, int, int]:
    counts = state["counts"]
    money = sum(one["charged_minor"] for one in state["money"].values())
    return counts.get("succeeded", 0), counts.get("replayed", 0), money


def _of_peer(state: dict[str, Any]) -> tuple[int, int, int]:
    return state["charges"], state["duplicates"], state["charged_minor"]


def read_all(bootstrap: str, topic: str, partitions: int) -> Iterable[Message]:
    """Each committed record of a topic, up to its end."""
    reader = Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"bench-{uuid.uuid4().hex}", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True,
    })  # fmt: skip
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    left = set(range(partitions))
    try:
        while left:
            for message in reader.consume(10_000, 1.0):
                if message.error():
                    left.discard(message.partition())
                else:
                    yield message
    finally:
        reader.close()
