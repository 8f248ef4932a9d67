"""What becomes of a transaction whose calls go wrong as they do in a cluster whose brokers come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamsocial_billing.kafka import committed, transactions
from streamsocial_billing.kafka.committed import KafkaProblem, Place
from streamsocial_billing.kafka.transactions import (
    NotAppended,
    OutcomeUnknown,
    RecordRefused,
    TransactionalWriter,
)
from streamsocial_billing.settings import Settings

KE = KafkaError
TIMED_OUT = KE._TIMED_OUT  # noqa: SLF001 - librdkafka's public names for its local errors
FENCED = KE._FENCED  # noqa: SLF001
MSG_TIMED_OUT = KE._MSG_TIMED_OUT  # noqa: SLF001
UNKNOWN_TOPIC = KE._UNKNOWN_TOPIC  # noqa: SLF001
SETTINGS = Settings(broker="kafka://127.0.0.1:1;kafka://127.0.0.1:2;kafka://127.0.0.1:3")
PLACE = "payments", 0


def again(code: int) -> KafkaError:
    """An error after which librdkafka lets the same call be made again."""
    return KafkaError(code, "", False, True, False)


def fatal(code: int) -> KafkaError:
    """An error that ends the producer."""
    return KafkaError(code, "", True, False, False)


def abortable(code: int) -> KafkaError:
    """An error after which the transaction has to be aborted."""
    return KafkaError(code, "", False, False, True)


class Kafka:
    """One partition; `answers` are the errors of the next calls by name, None: it goes well.

    `log` are the committed values, `open` those of the open transaction. A call whose answer is in `lost` has
    its effect, its answer does not come.
    """

    def __init__(self, **answers: Iterable[KafkaError | None]) -> None:
        self.answers = {name: list(errors) for name, errors in answers.items()}
        self.lost: set[KafkaError] = set()
        self.calls: list[str] = []
        self.log: dict[int, bytes] = {}
        self.open: dict[int, bytes] = {}
        self.end = 0
        self.unread: KafkaProblem | None = None
        self.without_offset = 0

    def call(self, name: str, effect: Callable[[], None] = lambda: None) -> None:
        """One call of a producer."""
        self.calls.append(name)
        error = self.answers[name].pop(0) if self.answers.get(name) else None
        if error is None or error in self.lost:
            effect()
        if error is not None:
            raise KafkaException(error)

    def commit(self) -> None:
        """What EndTxn does, its marker included."""
        self.log.update(self.open)
        self.finish()

    def finish(self) -> None:
        """The transaction ends; a marker takes an offset."""
        self.end += bool(self.open)
        self.open = {}


class Delivered:
    """A confirmed record."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def topic(self) -> str:
        """Of the only partition."""
        return PLACE[0]

    def partition(self) -> int:
        """The only one."""
        return PLACE[1]

    def offset(self) -> int:
        """Its place; -1001 if none came."""
        return self._offset


class Producer:
    """Stands where `confluent_kafka.Producer` does."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._queue: list[tuple[bytes, Any]] = []

    def list_topics(self, timeout: float) -> None:
        """A connection."""

    def init_transactions(self, timeout: float) -> None:
        """Ends what was open under the id."""
        self._kafka.call("init", self._kafka.finish)

    def begin_transaction(self) -> None:
        """No request."""

    def produce(self, topic: str, value: bytes, on_delivery: Any) -> None:
        """Queue it."""
        self._queue.append((value, on_delivery))

    def flush(self, timeout: float) -> int:
        """Deliver what is queued."""
        queue, self._queue = self._queue, []
        for value, on_delivery in queue:
            try:
                self._kafka.call("send")
            except KafkaException as problem:
                on_delivery(problem.args[0], None)
                continue
            offset, self._kafka.end = self._kafka.end, self._kafka.end + 1
            self._kafka.open[offset] = value
            lacks = self._kafka.without_offset > 0
            self._kafka.without_offset -= lacks
            on_delivery(None, Delivered(-1001 if lacks else offset))
        return 0

    def commit_transaction(self, timeout: float) -> None:
        """The point of no return."""
        self._kafka.call("commit", self._kafka.commit)

    def abort_transaction(self, timeout: float) -> None:
        """Nothing of it is there."""
        self._kafka.call("abort", self._kafka.finish)

    def purge(self) -> None:
        """Drop what is queued."""
        self._queue = []

    def __len__(self) -> int:
        """How many records have no answer yet."""
        return len(self._queue)

    def close(self) -> None:
        """End it."""


class Log:
    """Stands where `CommittedLog` does."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def ends(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """First offset, last stable one."""
        if self._kafka.unread is not None:
            raise self._kafka.unread
        return {place: (0, min(self._kafka.open, default=self._kafka.end)) for place in places}

    def read(self, span: dict[Place, tuple[int, int]], stall_s: float) -> Iterator[Delivered]:
        """The committed records."""
        ((start, end),) = span.values()
        return (Delivered(offset) for offset in self._kafka.log if start <= offset < end)


def writer(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> TransactionalWriter:
    """One over this Kafka; two of three brokers answer."""
    monkeypatch.setattr(transactions, "Producer", lambda _: Producer(kafka))
    monkeypatch.setattr(transactions, "CommittedLog", lambda *_: Log(kafka))
    monkeypatch.setattr(transactions, "PAUSES_S", (0.001, 0.002))
    there = dict(zip(SETTINGS.bootstrap.split(","), (True, False, True), strict=True))
    monkeypatch.setattr(committed, "answering", lambda _: there)
    return TransactionalWriter(SETTINGS, "id")


RECORD = {"topic": PLACE[0], "value": b"p1"}


@pytest.mark.parametrize(
    ("answers", "calls"),
    [
        ({}, "init send commit"),
        ({"init": [again(TIMED_OUT), again(KE.COORDINATOR_LOAD_IN_PROGRESS)]}, "init init init send commit"),
        ({"init": [KafkaError(KE.NOT_COORDINATOR), fatal(FENCED)]}, "init init init send commit"),
        ({"send": [KafkaError(KE.UNKNOWN_TOPIC_OR_PART)]}, "init send init send commit"),
        ({"send": [KafkaError(UNKNOWN_TOPIC)]}, "init send init send commit"),
        ({"send": [KafkaError(MSG_TIMED_OUT)]}, "init send init send commit"),
        ({"send": [KafkaError(MSG_TIMED_OUT)] * 7}, "init" + " send init" * 7 + " send commit"),
        ({"send": [fatal(FENCED)]}, "init send init send commit"),
        ({"commit": [again(TIMED_OUT)] * 3}, "init send commit commit commit commit"),
        ({"commit": [again(KE.COORDINATOR_LOAD_IN_PROGRESS)]}, "init send commit commit"),
    ],
)  # fmt: skip
def test_a_broker_that_comes_or_goes_costs_no_record_and_adds_none(
    answers: dict[str, list[KafkaError]], calls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinator or leader move, a topic is not known yet: asked or sent again, there once."""
    kafka = Kafka(**answers)

    writer(kafka, monkeypatch).append([RECORD])

    assert [b"p1"] == list(kafka.log.values())
    assert calls == " ".join(kafka.calls)


@pytest.mark.parametrize(
    "error", [fatal(FENCED), fatal(KE.INVALID_TXN_STATE), abortable(KE.INVALID_PRODUCER_ID_MAPPING)]
)
@pytest.mark.parametrize("lost", [True, False], ids=["committed", "not committed"])
def test_the_outcome_of_a_commit_that_no_call_can_tell_is_read(
    error: KafkaError, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed: it is done. Not committed: it is sent again. Once on the log in both cases."""
    kafka = Kafka(commit=[error])
    kafka.lost = {error} if lost else set()

    writer(kafka, monkeypatch).append([RECORD])

    assert [b"p1"] == list(kafka.log.values())
    assert ("init send commit init" if lost else "init send commit init send commit") == " ".join(kafka.calls)


def test_an_outcome_that_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither done nor refused is said."""
    kafka = Kafka(commit=[fatal(FENCED)])
    kafka.unread = KafkaProblem("nobody answers")

    with pytest.raises(OutcomeUnknown, match=r"the commit was not answered .*nobody answers"):
        writer(kafka, monkeypatch).append([RECORD])


def test_an_outcome_is_not_read_before_the_transaction_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """InitProducerId of the next one is what ends it: while that is not answered nothing is known."""
    kafka = Kafka(commit=[fatal(FENCED)], init=[None, *[KafkaError(TIMED_OUT)] * 10_000])
    monkeypatch.setattr(transactions, "LEARN_S", 0.05)

    with pytest.raises(OutcomeUnknown):
        writer(kafka, monkeypatch).append([RECORD], 0.1)


def test_a_record_confirmed_without_an_offset_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """-1001 is no place: the outcome of its commit could not be read."""
    kafka = Kafka()
    kafka.without_offset = 1

    writer(kafka, monkeypatch).append([RECORD])

    assert [b"p1"] == list(kafka.log.values())
    assert "init send init send commit" == " ".join(kafka.calls)


def test_what_kafka_refuses_for_good_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large stays too large; the producer goes on."""
    kafka = Kafka(send=[KafkaError(KE.MSG_SIZE_TOO_LARGE)])
    one = writer(kafka, monkeypatch)

    with pytest.raises(RecordRefused):
        one.append([RECORD])
    one.append([RECORD | {"value": b"p2"}])

    assert [b"p2"] == list(kafka.log.values())


def test_what_stays_in_vain_says_that_nothing_is_appended_and_who_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within its bound, by the brokers."""
    kafka = Kafka(send=[KafkaError(MSG_TIMED_OUT)] * 10_000)

    with pytest.raises(NotAppended) as caught:
        writer(kafka, monkeypatch).append([RECORD], 0.1)

    assert {} == kafka.log
    assert "2 of 3 brokers answer, 127.0.0.1:2 does not: start it" in str(caught.value)


def test_what_ends_the_work_ends_its_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction does not hold what was sent before."""
    kafka = Kafka()
    one = writer(kafka, monkeypatch)

    def work(send: transactions.Send) -> None:
        send([RECORD])
        raise KafkaProblem("somebody was quicker")

    with pytest.raises(KafkaProblem, match="somebody was quicker"):
        one.transact(work)
    one.append([RECORD | {"value": b"p2"}])

    assert [b"p2"] == list(kafka.log.values())
    assert "init send abort send commit" == " ".join(kafka.calls)
