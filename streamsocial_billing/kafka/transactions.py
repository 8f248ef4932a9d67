"""Appends records in transactions; learns what became of one whose commit was not answered.

In a cluster the coordinator of a transaction, or the leader of a partition, moves at any moment. What surely
is not on the log is sent again. A commit without an answer is asked for again on the same producer; where
that cannot answer (its id was fenced as the transaction took too long, say), the outcome is read: once
InitProducerId of the next producer with the id has succeeded, the transaction is committed or aborted for
good, and a read_committed reader sees its records or never will.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from faust_exactly_once import is_offset
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem, Place, said, unreachable
from streamsocial_billing.kafka.producers import aborted, close_quietly, producer_config
from streamsocial_billing.settings import Settings

T = TypeVar("T")
Record = Mapping[str, Any]
"""Arguments of `Producer.produce`."""
Send = Callable[[Iterable[Record]], list[Message]]
"""Sends records in the open transaction; returns them as confirmed, each with its place."""

PATIENCE_S: Final = 14.0
"""How long a transaction is tried: longer than a coordinator takes to move (Kafka's default: 9 s)."""
LEARN_S: Final = 3.0
"""How long its outcome is looked for beyond that."""
CONNECTED_S: Final = 1.0
CALL_S: Final = 5.0
"""Bound on one call of librdkafka."""
PAUSES_S: Final = 0.1, 1.0
"""Between two tries: at first, at most; doubled each time."""
LOOK_EVERY_S: Final = 0.1


class OutcomeUnknown(KafkaProblem):
    """Raised when a transaction may or may not be on the log."""


class NotAppended(KafkaProblem):
    """Raised when nothing of a transaction is on the log, nor ever will be."""


class RecordRefused(NotAppended):
    """Raised when Kafka refuses a record for good: sending it again cannot help."""


class _Aborted(Exception):
    """Raised when nothing of this try is on the log."""


class TransactionalWriter:
    """One transactional id, used from one thread. `before_commit` is called once all is confirmed."""

    def __init__(
        self, settings: Settings, transactional_id: str, before_commit: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._config = producer_config(settings, transactional_id)
        self._before_commit = before_commit
        self._producer: Producer | None = None
        self._in_transaction = False

    def open(self, within_s: float = PATIENCE_S) -> None:
        """Fence earlier producers of the id, ending their transaction; raises KafkaProblem."""
        self._opened(time.monotonic() + within_s)

    def append(self, records: Iterable[Record], within_s: float = PATIENCE_S) -> list[Message]:
        """Append records in one transaction; raises as `transact`."""
        listed = list(records)
        return self.transact(lambda send: send(listed), within_s)

    def transact(self, work: Callable[[Send], T], within_s: float = PATIENCE_S) -> T:
        """What `work` returns, once all that it sent is committed; it is called again for each try.

        Raises NotAppended, RecordRefused, OutcomeUnknown after `within_s` (the last one up to LEARN_S later);
        whatever `work` raises: then nothing of it is appended.
        """
        deadline, pause = time.monotonic() + within_s, PAUSES_S[0]
        while True:
            try:
                return self._try(work, deadline)
            except _Aborted as error:
                if time.monotonic() + pause > deadline:
                    raise NotAppended(str(unreachable(self._settings, error))) from None
            # not all at the same moment: who begins fences whoever is at it under the same id
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(2 * pause, PAUSES_S[1])

    def close(self) -> None:
        """Abort what is open; a second call does nothing."""
        producer, self._producer = self._producer, None
        if producer is not None:
            if self._in_transaction:
                aborted(producer, 1.0)
            close_quietly(producer)
        self._in_transaction = False

    def _try(self, work: Callable[[Send], T], deadline: float) -> T:
        try:
            # not `or`: a producer with nothing queued has the length 0, which is false
            producer = self._opened(deadline) if self._producer is None else self._producer
        except KafkaProblem as error:
            raise NotAppended(str(error)) from None
        sent: list[Message] = []

        def send(records: Iterable[Record]) -> list[Message]:
            confirmed = _sent(producer, records)
            sent.extend(confirmed)
            return confirmed

        try:
            producer.begin_transaction()
            self._in_transaction = True
            result = work(send)
            if sent and place_of(*sent) is None:
                raise _without_offset()
        except (KafkaException, SystemError) as error:
            raise self._abort(error) from None
        except BaseException:
            self._abort(None)
            raise
        self._before_commit()
        self._commit(producer, sent, deadline)
        self._in_transaction = False
        return result

    def _commit(self, producer: Producer, sent: Sequence[Message], deadline: float) -> None:
        """Commit, however often that has to be asked for; else find out what became of it."""
        while True:
            try:
                producer.commit_transaction(CALL_S)
                return
            except (KafkaException, SystemError) as problem:
                if not _can_be_resumed(problem) or time.monotonic() > deadline:
                    self._drop()
                    self._learn(sent, said(problem), max(deadline, time.monotonic() + LEARN_S))
                    return

    def _learn(self, sent: Sequence[Message], why: str, deadline: float) -> None:
        """Return if the transaction was committed; raises _Aborted if it never will be, OutcomeUnknown."""
        place = place_of(*sent)
        if place is None:
            return  # nothing was sent
        try:
            self._opened(deadline)
            there = _is_committed(CommittedLog(self._settings, LEARN_S), place, deadline)
        except KafkaProblem as error:
            raise OutcomeUnknown(f"the commit was not answered ({why}): {error}") from None
        if there is None:
            raise OutcomeUnknown(f"the commit was not answered ({why})")
        if not there:
            raise _Aborted(why)

    def _abort(self, cause: KafkaException | SystemError | None) -> Exception:
        """Abort the transaction, then say what the cause means.

        After an error of Kafka the producer is dropped: a record may be on its way, which an abort does not
        stop, and would be in the next transaction of the same epoch (KIP-890). The next producer's
        InitProducerId aborts under a new epoch.
        """
        producer, error = self._producer, _kafka_error(cause)
        if producer is not None and (cause is not None or len(producer) or not aborted(producer, CALL_S)):
            self._drop()
        self._in_transaction = False
        if error is not None and error.code() in REFUSED:
            return RecordRefused(said(error))
        return _Aborted(said(error or cause))

    def _drop(self) -> None:
        """Forget the producer: the next one with its id ends its transaction."""
        producer, self._producer, self._in_transaction = self._producer, None, False
        if producer is not None:
            producer.purge()
            close_quietly(producer)

    def _opened(self, deadline: float) -> Producer:
        """A new producer of the id, what an earlier one had open ended; raises KafkaProblem."""
        while True:
            producer = Producer(self._config)
            try:
                _initialise(producer, deadline)
            except KafkaException as problem:
                close_quietly(producer)
                error = problem.args[0]
                if error.code() in REFUSED or time.monotonic() > deadline - PAUSES_S[0]:
                    raise unreachable(self._settings, error) from None
            else:
                self._producer = producer
                return producer
            time.sleep(PAUSES_S[0])


def _initialise(producer: Producer, deadline: float) -> None:
    """InitProducerId, asked for again on the same producer while that may help."""
    with suppress(KafkaException):  # a connection first: else the coordinator is looked for after 500 ms only
        producer.list_topics(timeout=CONNECTED_S)
    while True:
        try:
            producer.init_transactions(max(0.1, min(CALL_S, deadline - time.monotonic())))
            return
        except KafkaException as problem:
            if not _can_be_resumed(problem) or time.monotonic() > deadline:
                raise


def _sent(producer: Producer, records: Iterable[Record]) -> list[Message]:
    """Send records, then wait until each is confirmed: a commit alone would not say that.

    Raises KafkaException; librdkafka gives a record up after the transaction's time-out.
    """
    queued, confirmed, failed = 0, list[Message](), list[KafkaError]()

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            confirmed.append(message)
        else:
            failed.append(error)

    for record in records:
        producer.produce(**record, on_delivery=delivered)
        queued += 1
    producer.flush(CALL_S)
    if failed:  # librdkafka purges what is queued beside a refused record
        raise KafkaException(next((one for one in failed if one.code() in REFUSED), failed[0]))
    if len(confirmed) < queued:
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))  # noqa: SLF001
    return confirmed


def place_of(*messages: Message) -> tuple[Place, int] | None:
    """Place and offset of the first of these whose offset is known.

    Where a leader moves, a record may be confirmed without one: it was there before it was sent again.
    """
    for message in messages:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and partition is not None and offset is not None and is_offset(offset):
            return (topic, partition), offset
    return None


def known_place(message: Message) -> tuple[Place, int]:
    """Place and offset of a confirmed record; where it has none, `transact` begins anew."""
    place = place_of(message)
    if place is None:
        raise _without_offset()
    return place


def _is_committed(log: CommittedLog, at: tuple[Place, int], deadline: float) -> bool | None:
    """Whether readers see the record, once its transaction has ended; None if that cannot be said."""
    place, offset = at
    while True:
        start, stable = log.ends([place])[place]
        if start > offset:
            return None
        if stable > offset:
            return any(one.offset() == offset for one in log.read({place: (offset, offset + 1)}, LEARN_S))
        if time.monotonic() > deadline:
            return None
        time.sleep(LOOK_EVERY_S)


def _can_be_resumed(problem: KafkaException | SystemError) -> bool:
    """True if the same call on the same producer may still be answered."""
    error = _kafka_error(problem)
    return error is not None and error.retriable() and not error.fatal() and not error.txn_requires_abort()


def _kafka_error(problem: BaseException | None) -> KafkaError | None:
    """What librdkafka said; confluent-kafka hides some fatal errors in a SystemError, or loses them."""
    if isinstance(problem, SystemError):
        problem = problem.__cause__
    return problem.args[0] if isinstance(problem, KafkaException) else None


def _without_offset() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._NO_OFFSET, "confirmed without an offset"))  # noqa: SLF001


REFUSED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
    }
)
"""Facts. That a topic is unknown is none: a broker that has not been told of it yet says so, too."""
