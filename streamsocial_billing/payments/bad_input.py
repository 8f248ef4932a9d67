"""Records that can never be handled: one dead letter each, in the transaction of their offset."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import orjson

from faust_exactly_once import Event, RecordTooLarge, Topic, partition_of
from streamsocial_billing.domain.card_numbers import holds_card_in_id, mask_card_numbers
from streamsocial_billing.domain.foreign_fields import BadInput, is_id
from streamsocial_billing.payments.record_outcome import named
from tables.task_counters import DEAD_LETTERS, EVENTS

logger = logging.getLogger(__name__)

REPLAY_OF = "replay_of"
"""Header of an event that `dlq replay` sent, and of the dead letter it became again: the first one's id."""
_LETTER_ID = re.compile(rb"[0-9]{1,9}-[0-9]{1,19}")
SMALL_BYTES: Final = 16 * 1024
"""Most of a dead letter's value where its topic does not take it whole."""
AT_ONCE_BYTES: Final = 4 * 1024
"""What is searched for card numbers on the event loop: a millisecond, whatever it is made of."""
PIECE_BYTES: Final = 16 * 1024
"""Searched in one go beside the event loop, which has its turn after each: ten milliseconds at most."""
BEYOND_BYTES: Final = 256
"""Searched beyond a piece: a card number may begin in one and end in the next."""
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Parse(Protocol[T_co]):
    """Reads a record; raises BadInput."""

    def __call__(self, value: bytes | None, *, key: bytes | None, now_ms: int) -> T_co:
        """What it says; `now_ms` is ms since the epoch."""


class Partitioned(Protocol):
    """Who knows how many partitions the sources have."""

    @property
    def partitions(self) -> int:
        """So many."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the event of each handler, the same way for all of them.

    `dead_letter_counts` are those of this process by reason; one whose unit comes again counts again.
    """

    dead_letters: Topic
    counters: Any
    sources: Partitioned
    dead_letter_counts: Counter[str] = field(default_factory=Counter)

    async def read(
        self, event: Event, parse: Parse[T], at_ms: int, *, placed: bool = True
    ) -> T | None:
        """What an event says, by `parse`; None: it was bad input, and is a dead letter now.

        Counts the event: the live audit looks for its answer. `placed`: its partition must be its key's.
        """
        self.counters.add_all(((named(EVENTS, event.topic), 1),))
        try:
            said = parse(event.value, key=event.key, now_ms=at_ms)
            if placed:
                self.check_partition(event)
        except BadInput as bad:
            await self.to_dead_letter(event, bad, at_ms)
            return None
        return said

    def check_partition(self, event: Event) -> None:
        """Refuse an event that murmur2 of its key puts elsewhere: its user would have two states."""
        if event.key is None:
            return
        belongs = partition_of(event.key, self.sources.partitions)
        if belongs != event.partition:
            raise BadInput(
                "wrong_partition", f"its key belongs to partition {belongs}, it is in {event.partition}"
            )

    async def to_dead_letter(self, event: Event, bad: BadInput, at_ms: int) -> None:
        """A dead letter with the original bytes; its offset commits in the same transaction."""
        value, masked = await _masked(event.value or b"")
        key, key_masked = await _masked(event.key or b"")
        self.counters.add(named(DEAD_LETTERS, event.topic), 1)
        headers = {
            "error": bad.detail, "reason": bad.reason,
            "source": f"{event.topic}/{event.partition}/{event.offset}", "at": str(at_ms), **_names(event),
        }  # fmt: skip
        if masked or key_masked:
            headers["masked"] = "card_number"
        came_from = _replay_of(event)
        if came_from is not None:
            headers[REPLAY_OF] = came_from
        try:
            self.dead_letters.put_into_unit(key or None, value, headers=headers)
        except RecordTooLarge:
            headers["length"] = str(len(value))
            self.dead_letters.put_into_unit(key or None, value[:SMALL_BYTES], headers=headers)
        self.dead_letter_counts[bad.reason] += 1
        logger.warning(
            "dead letter %s: %s: %s", headers["source"], bad.reason, bad.detail, extra={"reason": bad.reason}
        )


async def _masked(value: bytes) -> tuple[bytes, bool]:
    """Without card numbers; a longer one is searched beside the event loop."""
    if len(value) <= AT_ONCE_BYTES:
        return mask_card_numbers(value)
    return await asyncio.to_thread(_masked_in_pieces, value)


def _masked_in_pieces(value: bytes) -> tuple[bytes, bool]:
    """The same of a long one: a search holds the interpreter's lock, so each piece gives it back."""
    masked, found = bytearray(value), False
    for start in range(0, len(value), PIECE_BYTES):
        piece, holds = mask_card_numbers(bytes(masked[start : start + PIECE_BYTES + BEYOND_BYTES]))
        if holds:
            masked[start : start + len(piece)] = piece
            found = True
        time.sleep(0)
    return bytes(masked), found


def _replay_of(event: Event) -> str | None:
    """The id of the dead letter whose replay this event is; a foreign header is not passed on."""
    named = next((value for name, value in event.headers if name == REPLAY_OF), None)
    return named.decode() if named is not None and _LETTER_ID.fullmatch(named) else None


def _names(event: Event) -> dict[str, str]:
    """user_id and payment_id of a bad record, where they can be read and are ids."""
    value = event.value or b""
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(data, dict):
        return {}
    wanted = {name: data.get(name) for name in ("user_id", "payment_id")}
    return {
        name: text for name, text in wanted.items()
        if isinstance(text, str) and is_id(text) and not holds_card_in_id(text)
    }  # fmt: skip
