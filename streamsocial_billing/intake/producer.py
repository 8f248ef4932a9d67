"""The transactional producer of payment events.

An event commits together with its metric `requested`, or neither does. What a time-out leaves open is said
loudly: sending again is safe, as the payment_id is the idempotency key.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamsocial_billing.committed import CommittedLog, KafkaProblem, said, unreachable
from streamsocial_billing.events import PaymentEvent, requested_metric
from streamsocial_billing.intake.identity import IntakeError, IntakeIdentity
from streamsocial_billing.settings import METRICS, PAYMENTS, Settings

CHUNK_EVENTS: Final = 500
"""Most events in one transaction."""
MAX_TRIES: Final = 5
"""How often a chunk whose transaction surely failed is sent."""
CALL_S: Final = 5.0
"""Bound on one call of librdkafka; a commit is resumed until COMMIT_S."""
COMMIT_S: Final = 20.0
RETRY_PAUSE_S: Final = 0.2

Record = tuple[str, bytes, bytes]


class IntakeOutcomeUnknown(IntakeError):
    """Raised when a transaction may or may not be on the log: the caller sends its events again."""


class _SurelyAborted(Exception):
    """Raised when nothing of the chunk is on the log: it is sent again."""


class _Refused(Exception):
    """Raised when the broker refuses a record for good: sending it again cannot help."""


class PaymentProducer:
    """Appends payment events; one per process, used from one thread."""

    def __init__(self, settings: Settings, datadir: Path) -> None:
        self._settings = settings
        self._topics = settings.topic(PAYMENTS), settings.topic(METRICS)
        self._identity = IntakeIdentity(datadir)
        self.transactional_id = f"{settings.app_id}-intake-{self._identity.name}"
        self._producer: Producer | None = None
        self._in_transaction = False
        try:
            CommittedLog(settings).partitions(self._topics)
            self._open()
        except KafkaProblem as error:
            self.close()
            raise IntakeError(str(error)) from None

    def __enter__(self) -> PaymentProducer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, events: Sequence[PaymentEvent]) -> int:
        """Append events, each with its metric, at most CHUNK_EVENTS to a transaction; returns how many.

        Raises IntakeOutcomeUnknown if a commit was not answered, IntakeError if nothing of it is appended.
        """
        for start in range(0, len(events), CHUNK_EVENTS):
            self._submit_chunk(events[start : start + CHUNK_EVENTS])
        return len(events)

    def close(self) -> None:
        """Abort what is open, give the id back; a second call does nothing."""
        producer, self._producer = self._producer, None
        if producer is not None:
            if self._in_transaction:
                aborted(producer, 1.0)
            close_quietly(producer)
        self._in_transaction = False
        self._identity.release()

    def _submit_chunk(self, events: Sequence[PaymentEvent]) -> None:
        records = self._records(events)
        why = ""
        for attempt in range(MAX_TRIES):
            if attempt:
                time.sleep(RETRY_PAUSE_S * attempt)
            try:
                self._transact(records)
                return
            except _SurelyAborted as error:
                why = str(error)
            except _Refused as error:
                raise IntakeError(f"Kafka refuses a record: {error}") from None
        advice = "look at the broker, then submit again"
        raise IntakeError(f"nothing appended in {MAX_TRIES} tries ({why}): {advice}")

    def _records(self, events: Sequence[PaymentEvent]) -> list[Record]:
        payments, metrics = self._topics
        now_ms = time.time_ns() // 1_000_000
        records = []
        for event in events:
            records.append((payments, event.user_id.encode(), event.to_bytes()))
            records.append((metrics, event.product.encode(), requested_metric(event, now_ms)))
        return records

    def _transact(self, records: list[Record]) -> None:
        """Begin, send, confirm every delivery, commit."""
        producer = self._open() if self._producer is None else self._producer
        try:
            producer.begin_transaction()
            self._in_transaction = True
            self._send(producer, records)
        except KafkaException as error:
            raise self._abort(error.args[0]) from None
        self._commit(producer)
        self._in_transaction = False

    def _send(self, producer: Producer, records: list[Record]) -> None:
        """Queue the records, then wait until each is confirmed; a commit alone would not say that."""
        confirmed, failed = 0, list[KafkaError]()

        def delivered(error: KafkaError | None, _: Message) -> None:
            nonlocal confirmed
            if error is None:
                confirmed += 1
            else:
                failed.append(error)

        for topic, key, value in records:
            producer.produce(topic, key=key, value=value, on_delivery=delivered)
        producer.flush(CALL_S)
        if failed:
            raise self._abort(failed[0])
        if confirmed != len(records):
            raise self._abort(f"{len(records) - confirmed} records were not confirmed in {CALL_S:g} s")

    def _commit(self, producer: Producer) -> None:
        """Commit; an unanswered call is resumed on the same producer: a new one could not tell its end."""
        deadline = time.monotonic() + COMMIT_S
        while True:
            try:
                producer.commit_transaction(CALL_S)
                return
            except KafkaException as problem:
                error = problem.args[0]
                if error.txn_requires_abort():
                    raise self._abort(error) from None
                if error.fatal() or not error.retriable() or time.monotonic() > deadline:
                    self._drop()
                    raise IntakeOutcomeUnknown(f"the commit was not answered ({said(error)})") from None

    def _abort(self, cause: KafkaError | str) -> Exception:
        """Abort the transaction, then say what the cause means; a producer that cannot go on is dropped."""
        producer = self._producer
        fatal = isinstance(cause, KafkaError) and cause.fatal()
        if producer is not None and (fatal or not aborted(producer, CALL_S)):
            self._drop()
        self._in_transaction = False
        if isinstance(cause, KafkaError) and cause.code() in REFUSED:
            return _Refused(said(cause))
        return _SurelyAborted(said(cause))

    def _drop(self) -> None:
        """Forget the producer: the next one with its id ends its transaction."""
        producer, self._producer, self._in_transaction = self._producer, None, False
        if producer is not None:
            producer.purge()
            close_quietly(producer)

    def _open(self) -> Producer:
        producer = Producer(producer_config(self._settings, self.transactional_id))
        try:
            producer.init_transactions(CALL_S)
        except KafkaException as error:
            close_quietly(producer)
            raise IntakeError(str(unreachable(self._settings, error))) from None
        self._producer = producer
        return producer


REFUSED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's public names for its local errors
    }
)


def producer_config(settings: Settings, transactional_id: str) -> dict[str, Any]:
    """What every intake producer is made with.

    A killed intake's open transaction stalls every reader of `payments`: 3 s bound that. The short back-off
    is for the first record after a commit, nearly always answered with a retriable error.
    """
    return settings.client_config() | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": 3000,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 2,
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 100,
        "log_level": 0,
        # without it confluent-kafka raises a fatal error in the middle of a callback, as SystemError
        "error_cb": _heard,
    }


def _heard(_: KafkaError) -> None:
    """Nothing to do: a fatal error also fails the deliveries and every later call, where it is handled."""


def send_confirmed(
    producer: Producer, records: Iterable[Mapping[str, Any]], within_s: float
) -> list[Message]:  # fmt: skip
    """Send records (arguments of `produce`) in the open transaction; they are returned as delivered.

    A commit alone would not say that each is there. Raises KafkaException where one is refused or not
    confirmed `within_s` seconds after the last; the transaction is aborted then.
    """
    sent: list[Message] = []
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            sent.append(message)
        else:
            failed.append(error)

    for record in records:
        producer.produce(**record, on_delivery=delivered)
    if producer.flush(within_s) or failed:
        aborted(producer, within_s)
        raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
    return sent


def aborted(producer: Producer, within_s: float) -> bool:
    """True if the broker confirmed the abort; if not, InitProducerId of the next producer aborts."""
    try:
        producer.purge()
        producer.abort_transaction(within_s)
    except KafkaException:
        return False
    return True


def close_quietly(producer: Producer) -> None:
    """Close a producer; that a fenced one cannot abort is no news, the broker has done it."""
    with warnings.catch_warnings(), suppress(KafkaException, SystemError):
        warnings.simplefilter("ignore", RuntimeWarning)
        producer.close()
