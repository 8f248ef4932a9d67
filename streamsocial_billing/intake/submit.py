"""Submits payments from JSON lines."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput, json_object
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.routing import with_gateway
from streamsocial_billing.intake.identity import IntakeError
from streamsocial_billing.intake.producer import CHUNK_EVENTS, IntakeOutcomeUnknown, PaymentProducer
from streamsocial_billing.logs.lines import escaped
from streamsocial_billing.settings import Settings

FLUSH_AFTER_S: Final = 0.2
"""How long a payment waits at most for others to share its transaction."""
MAX_LINE_BYTES: Final = 1_048_576
READ_BYTES: Final = 65_536


def submit_lines(
    settings: Settings,
    datadir: Path,
    stream: BinaryIO,
    *,
    default_gateway: str | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[int, int]:
    """Append each line's payment while reading; returns how many were accepted, refused.

    `default_gateway` is that of payments that name none; None: see `with_gateway`.
    `say` gets `line N: reason: detail` for each refused line (default: stderr); blank lines are passed over.
    Raises IntakeError, which names the first line that was not appended or those whose outcome is unknown.
    """
    say = say or (lambda text: print(escaped(text), file=sys.stderr, flush=True))
    with PaymentProducer(settings, datadir) as producer:
        return _Submission(producer, settings, default_gateway, say).run(_Lines(stream))


class _Submission:
    """The payments of one stream on their way into Kafka."""

    def __init__(
        self, producer: PaymentProducer, settings: Settings, gateway: str | None, say: Callable[[str], None]
    ) -> None:
        self._producer = producer
        self._settings = settings
        self._gateway = gateway
        self._say = say
        self._waiting: list[PaymentEvent] = []
        self._lines = [0, 0]  # of the first, of the last waiting payment
        self._flush_at = 0.0
        self.accepted = 0
        self.refused = 0

    def run(self, lines: _Lines) -> tuple[int, int]:
        """Until the stream ends: read what is there, send what waited long enough."""
        while not lines.ended:
            wait_s = max(0.0, self._flush_at - time.monotonic()) if self._waiting else None
            for number, line in lines.more(wait_s):
                self._take(number, line)
            if self._waiting and time.monotonic() >= self._flush_at:
                self._flush()
        self._flush()
        return self.accepted, self.refused

    def _take(self, number: int, line: bytes | None) -> None:
        """Check one line (None: too long to be one)."""
        if line is not None and not line.strip():
            return
        try:
            event = self._event(line)
        except BadInput as error:
            self.refused += 1
            self._say(f"line {number}: {error.reason}: {error.detail}")
            return
        if not self._waiting:
            self._lines[0], self._flush_at = number, time.monotonic() + FLUSH_AFTER_S
        self._lines[1] = number
        self._waiting.append(event)
        if len(self._waiting) == CHUNK_EVENTS:
            self._flush()

    def _event(self, line: bytes | None) -> PaymentEvent:
        if line is None:
            raise BadInput("too_large", f"more than {MAX_LINE_BYTES} bytes")
        data = with_gateway(json_object(line), self._settings, self._gateway)
        return PaymentEvent.from_mapping(data, now_ms=now_ms())

    def _flush(self) -> None:
        """Append what waits, in one transaction."""
        if not self._waiting:
            return
        first, last = self._lines
        try:
            self.accepted += self._producer.submit(self._waiting)
        except IntakeOutcomeUnknown as error:
            raise IntakeOutcomeUnknown(
                f"lines {first}-{last}: outcome unknown, {error}; {self.accepted} payments before are "
                f"appended; submit again from line {first}: the payment_id keeps it from being charged twice"
            ) from None
        except IntakeError as error:
            raise IntakeError(f"line {first}: not appended, nor any later one: {error}") from None
        self._waiting = []


class _Lines:
    """Numbered lines of a stream that need not have ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._poll = _poll_of(stream)
        self._rest = b""
        self._too_long = False
        self._number = 0
        self.ended = False

    def more(self, wait_s: float | None) -> list[tuple[int, bytes | None]]:
        """The lines that are there now (None: too long); none after `wait_s` seconds (None: no limit)."""
        if self._poll is not None and not self._poll.poll(None if wait_s is None else 1000 * wait_s):
            return []
        # one system call: what is read into a buffer beyond READ_BYTES would be invisible to poll()
        data = getattr(self._stream, "read1", self._stream.read)(READ_BYTES)
        if not data:
            self.ended = True
            return self._last()
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [self._numbered(line) for line in whole]
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._too_long = b"", True
        return lines

    def _numbered(self, line: bytes) -> tuple[int, bytes | None]:
        self._number += 1
        too_long, self._too_long = self._too_long or len(line) > MAX_LINE_BYTES, False
        return self._number, None if too_long else line

    def _last(self) -> list[tuple[int, bytes | None]]:
        return [self._numbered(self._rest)] if self._rest or self._too_long else []


def _poll_of(stream: BinaryIO) -> select.poll | None:
    """What tells whether input is there; None for a stream in memory, that never makes one wait."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return None
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return poll
