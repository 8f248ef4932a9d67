"""Dead letters: what they say, and the one way back for an event.

A replay appends the event and a marker in one transaction, whose transactional id belongs to the letter:
whoever comes second is fenced, or finds the marker. So a letter goes back once, whoever replays it; one that
would fail again does not go back, and stays usable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from confluent_kafka import Message
from msgspec import Struct
from msgspec.json import Decoder

from streamsocial_billing.domain.card_numbers import mask_card_numbers
from streamsocial_billing.domain.events import ENCODER, PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.routing import with_gateway
from streamsocial_billing.kafka.committed import STALL_S, CommittedLog, KafkaProblem, Place
from streamsocial_billing.kafka.transactions import (
    OutcomeUnknown,
    RecordRefused,
    Send,
    TransactionalWriter,
    known_place,
)
from streamsocial_billing.payments.bad_input import REPLAY_OF
from streamsocial_billing.settings import DEAD_LETTERS, PAYMENTS, REPLAYS, Settings

BETWEEN_S: Final = 2.0
"""How long what lies between may take: the transaction is open meanwhile."""
SHOWN: Final = (
    "id", "at_ms", "reason", "error", "source", "user_id", "payment_id", "masked", "cut_from", "replay_of",
)  # fmt: skip


class ReplayRefused(KafkaProblem):
    """Raised when a letter may not go back as asked: one line that names why, what to do."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record of `payments-dlq`; `id` is its partition and offset there, `at_ms` ms since the epoch.

    masked: a card number was taken out; cut_from: the length in bytes of a value that was cut, else None;
    replay_of: the id of the letter whose replay this one came from, else None.
    """

    id: str
    at_ms: int
    reason: str
    error: str
    source: str
    user_id: str | None
    payment_id: str | None
    key: bytes | None
    value: bytes
    masked: bool
    cut_from: int | None
    replay_of: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For a line of `dlq list --json`: no content."""
        return {name: getattr(self, name) for name in SHOWN}

    def text(self) -> str:
        """The content for people; a card number that came past the first check does not get out here."""
        return mask_card_numbers(self.value)[0].decode("utf-8", "backslashreplace")


def dead_letters(settings: Settings) -> Iterator[DeadLetter]:
    """Every letter so far, oldest first within a partition; raises KafkaProblem."""
    log, topic = CommittedLog(settings), settings.topic(DEAD_LETTERS)
    places = [(topic, partition) for partition in range(log.partitions([topic])[topic])]
    return map(_letter, log.read(log.ends(places)))


def dead_letter(settings: Settings, letter_id: str) -> DeadLetter:
    """The letter with this id; raises ReplayRefused where there is none, KafkaProblem."""
    log, topic = CommittedLog(settings), settings.topic(DEAD_LETTERS)
    partition, dash, offset = letter_id.partition("-")
    numbers = dash and all(part.isascii() and part.isdigit() for part in (partition, offset))
    if numbers and int(partition) < log.partitions([topic])[topic]:
        place = topic, int(partition)
        start, end = log.ends([place])[place]
        if start <= int(offset) < end:
            for message in log.read({place: (int(offset), int(offset) + 1)}):
                return _letter(message)
    raise ReplayRefused(f"there is no dead letter {letter_id}: `dlq list` shows their ids, such as 3-17")


class ReplayMarker(Struct, frozen=True, omit_defaults=True):
    """A record of `payments-dlq-replays` (key = the letter's id): who sent a letter back, when, where to.

    letter  the id of the letter, such as 3-17
    at      milliseconds since the epoch
    to      where the event stands now, as in "payments/3/17"; a release before 0.2.0 did not note it
    """

    letter: str
    actor: str
    at: int
    to: str | None = None


_MARKERS: Final = Decoder(ReplayMarker)


@dataclass(frozen=True, slots=True)
class Replay:
    """How a letter went back: `to` as in "payments/3/17"; None, of a release that did not note it."""

    to: str | None
    actor: str
    at_ms: int


def replayed(settings: Settings) -> dict[str, Replay]:
    """The letters that went back, by id."""
    log = CommittedLog(settings)
    return _replays(log, log.ends(_places_of(log, settings.topic(REPLAYS))))


def _places_of(log: CommittedLog, topic: str) -> list[Place]:
    return [(topic, partition) for partition in range(log.partitions([topic])[topic])]


def _replays(
    log: CommittedLog, span: Mapping[Place, tuple[int, int]], stall_s: float = STALL_S
) -> dict[str, Replay]:  # fmt: skip
    back = {}
    for message in log.read(span, stall_s):
        told = _MARKERS.decode(message.value() or b"")
        back[(message.key() or b"").decode()] = Replay(told.to, told.actor, told.at)
    return back


def failed_again(back: Mapping[str, Replay], found: Iterable[DeadLetter]) -> dict[str, str]:
    """Which of these letters came from whose replay: id of the letter that went back -> id of the new."""
    of = {one.to: letter_id for letter_id, one in back.items() if one.to is not None}
    named = ((one.replay_of or of.get(one.source), one.id) for one in found)
    return {first: second for first, second in named if first is not None}


def replay(settings: Settings, letter_id: str, *, correction: bytes | None, actor: str, dry_run: bool) -> str:
    """Send a letter's event back to `payments`, once; returns what was (or would be) done, for people.

    `correction`: a payment as JSON that takes the place of the letter's own bytes; its user_id is the key.
    Raises ReplayRefused, also for what would fail again, KafkaProblem.
    """
    found = dead_letter(settings, letter_id)
    if letter_id in replayed(settings):
        raise _twice(letter_id)
    key, value = _content(settings, found, correction)
    what = "the correction" if correction is not None else "the original bytes"
    if dry_run:
        return f"{letter_id} would go back to {settings.topic(PAYMENTS)}: {what}, {len(value)} bytes"
    writer = TransactionalWriter(settings, f"{settings.app_id}-replay-{letter_id}")
    try:
        writer.transact(lambda send: _append_once(
            settings=settings, send=send, letter_id=letter_id, key=key, value=value, actor=actor,
        ))  # fmt: skip
    except OutcomeUnknown as error:
        raise KafkaProblem(f"the replay of {letter_id}: run it again, it goes back once: {error}") from None
    except RecordRefused as error:
        raise ReplayRefused(f"{letter_id} cannot go back, Kafka refuses it: {error}") from None
    finally:
        writer.close()
    return f"{letter_id} is back on {settings.topic(PAYMENTS)}: {what}, {len(value)} bytes"


def _content(settings: Settings, found: DeadLetter, correction: bytes | None) -> tuple[bytes | None, bytes]:
    if found.source.rpartition("/")[0].rpartition("/")[0] != settings.topic(PAYMENTS):
        raise ReplayRefused(
            f"{found.id} came from {found.source}: only events of {settings.topic(PAYMENTS)} go back"
        )
    if correction is not None:
        try:
            data = orjson.loads(correction)
            if not isinstance(data, dict):
                raise BadInput("not_an_object", "a JSON object is needed")
            routed = with_gateway(data, settings)
            event = PaymentEvent.from_mapping(routed, now_ms=now_ms())
        except (orjson.JSONDecodeError, BadInput) as error:
            raise ReplayRefused(f"the correction is not a valid payment: {error}") from None
        return event.user_id.encode(), event.to_bytes()
    if found.masked or found.cut_from is not None:
        why = "a card number was masked in it" if found.masked else f"it was cut from {found.cut_from} bytes"
        raise ReplayRefused(f"{found.id} cannot go back as it is, {why}: give --correction FILE")
    _check_now(found)
    return found.key, found.value


def _check_now(found: DeadLetter) -> None:
    """The agent's own checks, as of now: a time may have come, a release may take more.

    Not that of the partition: the replay goes where the key belongs. Raises ReplayRefused.
    """
    try:
        PaymentEvent.from_bytes(found.value, key=found.key, now_ms=now_ms())
    except BadInput as bad:
        raise ReplayRefused(
            f"{found.id} would fail again, {bad.reason}: {bad.detail}; give --correction FILE"
        ) from None


def _append_once(
    settings: Settings, send: Send, letter_id: str, key: bytes | None, value: bytes, actor: str
) -> None:
    """Event and marker, each confirmed, in one transaction; no `requested` metric: nobody asked anew.

    The id of this transaction is the letter's: what another one had open has ended when this one begins, so
    its marker is on the log now, or never will be. Where leaders move, who is asked for the end of that log
    may be one that leads no more, so what lies between the end that it gave and our own marker, which the
    leader confirmed, is read as well. Raises ReplayRefused.
    """
    log, topic = CommittedLog(settings), settings.topic(REPLAYS)
    ends = log.ends(_places_of(log, topic))
    if letter_id in _replays(log, ends):
        raise _twice(letter_id)
    (there,) = send([{
        "topic": settings.topic(PAYMENTS), "value": value, "key": key, "headers": {REPLAY_OF: letter_id},
    }])  # fmt: skip
    (payments, partition), offset = known_place(there)
    marker = ENCODER.encode(ReplayMarker(letter_id, actor, now_ms(), f"{payments}/{partition}/{offset}"))
    (back,) = send([{"topic": topic, "value": marker, "key": letter_id.encode()}])
    place, ours = known_place(back)
    if letter_id in _replays(log, {place: (ends[place][1], ours)}, BETWEEN_S):
        raise _twice(letter_id)


def _twice(letter_id: str) -> ReplayRefused:
    return ReplayRefused(f"{letter_id} went back before: a letter is replayed once")


def _letter(message: Message) -> DeadLetter:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in _headers(message)}
    length, at = headers.get("length"), headers.get("at", "")
    return DeadLetter(
        id=f"{message.partition()}-{message.offset()}",
        at_ms=int(at) if at.isdigit() else message.timestamp()[1],
        reason=headers.get("reason", ""), error=headers.get("error", ""), source=headers.get("source", ""),
        user_id=headers.get("user_id"), payment_id=headers.get("payment_id"), key=message.key(),
        value=message.value() or b"", masked="masked" in headers,
        cut_from=int(length) if length is not None and length.isdigit() else None,
        replay_of=headers.get(REPLAY_OF),
    )  # fmt: skip


def _headers(message: Message) -> list[tuple[str, bytes]]:
    found: Any = message.headers() or []
    return [(name, value if isinstance(value, bytes) else str(value).encode()) for name, value in found]
