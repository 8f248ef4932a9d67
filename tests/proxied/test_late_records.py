"""Records that reach the broker after their transaction was given up.

A broker, or the network in front of it, may hold a record for longer than its producer waits. Aborting the
transaction does not stop it: it comes after the abort marker, and where the producer goes on under the same
epoch, the partition takes it for a part of the next transaction (KIP-890). That commits it a second time.
"""

from __future__ import annotations

from itertools import count

from support.records import committed
from support.until import until

from faust_exactly_once import Options
from faust_exactly_once.errors import KafkaUnavailable, OutcomeUnknown, TransactionAborted
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.units import Outgoing
from streamsocial_billing.kafka.transactions import Send, TransactionalWriter
from streamsocial_billing.settings import Settings
from torture.cluster import ProxiedBroker
from torture.proxy import Link

HELD_S = 4.5
"""Longer than a producer waits for its record, shorter than that and a transaction."""
READ_S = 60.0
RECORD_S = 1.0
COMMIT_S = 60.0
"""A commit without an answer may have come about: nothing is sent again because a machine is slow with it."""


class Task:
    """What a task does with its producer: sends again what is surely aborted, else begins with a new one."""

    def __init__(self, kafka: ProxiedBroker, name: str) -> None:
        self._options = Options(
            client_config={"bootstrap.servers": kafka.url("w1").removeprefix("kafka://")},
            request_timeout_s=RECORD_S,
        )
        self._name = name
        self._producer = self._opened()

    def _opened(self) -> ConfluentProducer:
        producer = ConfluentProducer(self._options, self._name)
        until(lambda: initialised(producer), "the transactional id is ours")
        return producer

    def append(self, link: Link, topic: str, value: bytes) -> None:
        """Until it is committed; the link heals after the first try, what it held comes before the commit."""
        while True:
            try:
                self._producer.timeout_s = RECORD_S
                self._producer.begin_transaction()
                self._producer.send([Outgoing(topic, b"k", value, 0)])
                self._producer.confirm()
                passes(link)
                self._producer.timeout_s = COMMIT_S
                return self._producer.commit_transaction()
            except TransactionAborted:
                link.trouble()
            except OutcomeUnknown:
                link.trouble()
                self._producer.close()
                self._producer = self._opened()

    def close(self) -> None:
        self._producer.close()


def test_a_task_s_record_that_comes_late_is_in_no_later_transaction(
    kafka: ProxiedBroker, link: Link, topic: str
) -> None:
    """Held beyond the request time-out, sent again, then delivered: readers of the committed see it once."""
    task = Task(kafka, topic)
    task.append(link, topic, b"0")
    link.trouble(hold_produce_s=HELD_S)
    task.append(link, topic, b"1")
    assert link.seen["held_produce"] > 0
    task.append(link, topic, b"2")
    task.close()
    assert [b"0", b"1", b"2"] == committed(kafka.bootstrap, topic, READ_S)


def test_a_writer_s_record_that_comes_late_is_in_no_later_transaction(
    kafka: ProxiedBroker, link: Link, topic: str
) -> None:
    """The same for whoever writes beside the workers."""
    settings = Settings.from_environment({"BILLING_BROKER": kafka.url("w1")})
    writer = TransactionalWriter(settings, topic)
    writer.append([{"topic": topic, "value": b"0", "partition": 0}])
    link.trouble(hold_produce_s=HELD_S)
    tries = count()

    def work(send: Send) -> None:
        if next(tries):
            link.trouble()
        send([{"topic": topic, "value": b"1", "partition": 0}])
        passes(link)

    writer.transact(work, 120.0)
    assert next(tries) > 1
    writer.append([{"topic": topic, "value": b"2", "partition": 0}])
    writer.close()
    assert [b"0", b"1", b"2"] == committed(kafka.bootstrap, topic, READ_S)


def initialised(producer: ConfluentProducer) -> bool:
    """Once the coordinator is there."""
    try:
        producer.init_transactions()
    except KafkaUnavailable:
        return False
    return True


def passes(link: Link) -> None:
    """Return when what was held has gone on to the broker."""
    until(lambda: not link.waiting(), "what was held has gone on", HELD_S + 60)
