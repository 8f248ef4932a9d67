"""The transactional producer of payment events.

An event commits together with its metric `requested`, or neither does. What a time-out leaves open is said
loudly: sending again is safe, as the payment_id is the idempotency key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.results import requested_metric
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.intake.identity import IntakeError, IntakeIdentity
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem
from streamsocial_billing.kafka.transactions import (
    PATIENCE_S,
    OutcomeUnknown,
    RecordRefused,
    TransactionalWriter,
)
from streamsocial_billing.settings import METRICS, PAYMENTS, Settings

CHUNK_EVENTS: Final = 500
"""Most events in one transaction."""

Record = tuple[str, bytes, bytes]
"""Topic, key, value."""


class IntakeOutcomeUnknown(IntakeError):
    """Raised when a transaction may or may not be on the log: the caller sends its events again."""


class PaymentProducer:
    """Appends payment events; one per process, used from one thread.

    `patience_s`: how long each transaction, and the opening, is tried while Kafka does not take it.
    """

    def __init__(self, settings: Settings, datadir: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._topics = settings.topic(PAYMENTS), settings.topic(METRICS)
        self._identity = IntakeIdentity(datadir)
        self.transactional_id = f"{settings.app_id}-intake-{self._identity.name}"
        self._writer = TransactionalWriter(settings, self.transactional_id, self._before_commit)
        try:
            CommittedLog(settings).partitions(self._topics)
            self._writer.open(patience_s)
        except KafkaProblem as error:
            self.close()
            raise IntakeError(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, events: Sequence[PaymentEvent]) -> int:
        """Append events, each with its metric, at most CHUNK_EVENTS to a transaction; returns how many.

        Raises IntakeOutcomeUnknown if a commit was not answered and its outcome could not be read either,
        IntakeError if nothing of it is appended. Each transaction takes at most
        `patience_s` and some seconds.
        """
        for start in range(0, len(events), CHUNK_EVENTS):
            self._submit_chunk(events[start : start + CHUNK_EVENTS])
        return len(events)

    def close(self) -> None:
        """Abort what is open, give the id back; a second call does nothing."""
        self._writer.close()
        self._identity.release()

    def _submit_chunk(self, events: Sequence[PaymentEvent]) -> None:
        records = self._records(events)
        try:
            self._writer.append(
                ({"topic": topic, "key": key, "value": value} for topic, key, value in records),
                self._patience_s,
            )
        except OutcomeUnknown as error:
            raise IntakeOutcomeUnknown(str(error)) from None
        except RecordRefused as error:
            raise IntakeError(f"Kafka refuses a record: {error}") from None
        except KafkaProblem as error:
            raise IntakeError(f"nothing appended: {error}") from None

    def _records(self, events: Sequence[PaymentEvent]) -> list[Record]:
        payments, metrics = self._topics
        at_ms = now_ms()
        records = []
        for event in events:
            records.append((payments, event.user_id.encode(), event.to_bytes()))
            records.append((metrics, event.product.encode(), requested_metric(event, at_ms)))
        return records

    def _before_commit(self) -> None:
        """Called once every record of a transaction is confirmed: where tests end an intake."""
