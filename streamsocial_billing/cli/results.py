"""Prints charge results as JSON lines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from confluent_kafka import Message
from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from faust_exactly_once import partition_of
from streamsocial_billing.kafka.committed import CommittedLog, Place
from streamsocial_billing.logs.lines import escaped_json
from streamsocial_billing.settings import RESULTS, Settings

DRAW_EVERY_S: Final = 0.1


class Asked(Struct, frozen=True):
    """What can be asked of a ChargeResult: a record that another writer cut short is found by what it has."""

    processed_at: int
    status: str
    user_id: str | None = None
    payment_id: str | None = None
    gateway: str | None = None
    product: str | None = None


_ASKED: Final = Decoder(Asked)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which results are printed: those that meet everything that is given.

    user_id, payment_id, gateway, product  as in a ChargeResult
    statuses      any of these; empty: each
    since, until  ms since the epoch: `since` <= processed_at < `until`
    """

    user_id: str | None = None
    payment_id: str | None = None
    statuses: frozenset[str] = frozenset()
    gateway: str | None = None
    product: str | None = None
    since: int | None = None
    until: int | None = None

    def takes(self, result: Asked) -> bool:
        """True for one that is to be printed."""
        at = result.processed_at
        if (self.since is not None and at < self.since) or (self.until is not None and at >= self.until):
            return False
        if self.statuses and result.status not in self.statuses:
            return False
        named = ("user_id", "payment_id", "gateway", "product")
        return all(getattr(self, name) in (None, getattr(result, name)) for name in named)


EVERYTHING: Final = Wanted()


def follow_results(
    settings: Settings, *, follow: bool, out: TextIO, wanted: Wanted = EVERYTHING, err: TextIO | None = None
) -> int:
    """Print every committed result that is wanted, oldest first within a partition; returns how many.

    `follow`: go on for ever, until a KeyboardInterrupt or until nobody reads `out`. `err`, if it is a
    terminal, shows how far the reading is. Of a wanted user only that user's partition is read. Raises
    KafkaProblem.
    """
    log = CommittedLog(settings)
    places = _places(log, settings, wanted.user_id)
    ends = {} if follow else log.ends(places)
    shown = _HowFar(None if follow else err, out, ends)
    printed = 0
    try:
        for message in log.follow(places[0][0], only=places) if follow else log.read(ends):
            if message is None:
                out.flush()
                continue
            shown.read(message)
            value = message.value()
            if value is not None and (wanted is EVERYTHING or _takes(wanted, value, message)):
                shown.make_room()
                out.write(escaped_json(value.decode(errors="replace")) + "\n")
                printed += 1
        shown.clear()
        out.flush()
    except BrokenPipeError:  # `results | head`: an ordinary end
        if out is sys.stdout:  # else Python reports the same pipe again when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return printed


def _takes(wanted: Wanted, value: bytes, message: Message) -> bool:
    """False, with a line on stderr, for what is no result."""
    try:
        return wanted.takes(_ASKED.decode(value))
    except DecodeError as error:
        place = f"{message.topic()}-{message.partition()}@{message.offset()}"
        print(f"{place} is no result, left out: {error}", file=sys.stderr)
        return False


def _places(log: CommittedLog, settings: Settings, user_id: str | None) -> list[Place]:
    topic = settings.topic(RESULTS)
    count = log.partitions([topic])[topic]
    numbers = range(count) if user_id is None else [partition_of(user_id.encode(), count)]
    return [(topic, number) for number in numbers]


class _HowFar:
    """A line on a terminal: records read, of how many; nothing where `err` is no terminal.

    Kafka's markers of transactions count as records there: their number is not known beforehand.
    """

    def __init__(self, err: TextIO | None, out: TextIO, ends: Mapping[Place, tuple[int, int]]) -> None:
        self._err = err if err is not None and err.isatty() else None
        self._shared = out.isatty()
        self._starts = {place: start for place, (start, _) in ends.items()}
        self._done = dict.fromkeys(ends, 0)
        self._total = sum(end - start for start, end in ends.values())
        self._drawn_at, self._drawn = 0.0, False

    def read(self, message: Message) -> None:
        """One more record is read."""
        if self._err is None:
            return
        place = message.topic() or "", message.partition() or 0
        self._done[place] = (message.offset() or 0) + 1 - self._starts[place]
        if time.monotonic() - self._drawn_at > DRAW_EVERY_S:
            self._err.write(f"\r{sum(self._done.values()):,} of {self._total:,} records read\x1b[K")
            self._err.flush()
            self._drawn_at, self._drawn = time.monotonic(), True

    def make_room(self) -> None:
        """A line of output follows: the two must not share a line."""
        if self._shared:
            self.clear()

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._drawn and self._err is not None:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._drawn = False
