"""Appends the payments of several requests in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.intake.identity import IntakeError
from streamsocial_billing.intake.micro_batcher import MicroBatcher, Outcome
from streamsocial_billing.intake.producer import CHUNK_EVENTS, PaymentProducer
from streamsocial_billing.settings import Settings

PATIENCE_S: Final = 30.0
"""How long an append is tried. Its requests are answered `outcome_unknown` after 4 s in any case; a repeat
must not be told that nothing was appended while leaders move, which takes a busy cluster 20 s."""


def appending(settings: Settings, datadir: Callable[[], Path]) -> MicroBatcher[PaymentEvent]:
    """What appends payments, each with its metric; what waits while a transaction commits shares the next.

    `datadir` is asked when the first payment comes: it holds the intake's name, beside a worker's databases
    (a `submit` on the same folder takes another number).
    """
    one = _Appending(settings, datadir)
    return MicroBatcher("payment-intake", one.append, one.close, most=CHUNK_EVENTS)


class _Appending:
    """Owns the producer, in the one thread that uses it."""

    def __init__(self, settings: Settings, datadir: Callable[[], Path]) -> None:
        self._settings = settings
        self._datadir = datadir
        self._producer: PaymentProducer | None = None

    def append(self, events: Sequence[PaymentEvent]) -> list[Outcome]:
        """One transaction, so one outcome for all of them."""
        try:
            if self._producer is None:
                self._producer = PaymentProducer(self._settings, self._datadir(), patience_s=PATIENCE_S)
            self._producer.submit(events)
        except IntakeError as error:
            return [error] * len(events)
        return [None] * len(events)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
