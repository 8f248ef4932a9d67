"""Orders a command and waits for what became of it: the command line's side of `billing-commands`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message

from faust_exactly_once import partition_of
from streamsocial_billing.domain.results import ChargeResult
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem, Place
from streamsocial_billing.operations.commands import Command, append_command
from streamsocial_billing.operations.replies import DONE, Answer
from streamsocial_billing.settings import ANSWERS, COMMANDS, RESULTS, Settings

NOT_ANSWERED: Final = 3
"""Exit code: it is ordered, what becomes of it is not known yet."""


class NotAnswered(KafkaProblem):
    """Raised when the time is over before every task has answered: the order stands."""

    exit_code = NOT_ANSWERED


@dataclass(frozen=True, slots=True)
class Became:
    """What became of a command.

    answers  one for each copy
    charge   the newest ChargeResult of the payment that it sent; None: it sent none, or has no result yet
    """

    answers: list[Answer]
    charge: ChargeResult | None = None

    def done(self) -> bool:
        """True if every task has done it."""
        return all(one.outcome == DONE for one in self.answers)

    def payment_id(self) -> str | None:
        """Of the payment that it sent."""
        return next((one.payment_id for one in self.answers if one.payment_id is not None), None)

    def charge_is_open(self) -> bool:
        """True while the payment that it sent has no final result."""
        return self.payment_id() is not None and (self.charge is None or self.charge.status in OPEN)


def send_command(settings: Settings, command: Command, wait_s: float) -> Became:
    """Append a command; what became of it, as soon as every copy is answered.

    A payment that the command sent is waited for, too, as long as time is left. Raises NotAnswered, else
    KafkaProblem: then it was not ordered, or the text says that it may be.
    """
    log, deadline = CommittedLog(settings), time.monotonic() + wait_s
    answers, copies = _ends(settings, log, ANSWERS), 1
    results = {} if command.user_id is None else _ends(settings, log, RESULTS, command.user_id)
    if command.user_id is None:
        topic = settings.topic(COMMANDS)
        copies = log.partitions([topic])[topic]
    append_command(settings, command)
    became = Became(_answered(
        settings=settings, log=log, command=command, starts=answers, copies=copies, deadline=deadline,
        wait_s=wait_s,
    ))  # fmt: skip
    payment_id = became.payment_id()
    if payment_id is None:
        return became
    return Became(became.answers, _settled(settings, log, payment_id, results, deadline))


def _ends(
    settings: Settings, log: CommittedLog, name: str, user_id: str | None = None
) -> dict[Place, int]:
    """Where a topic, or a user's part of it, ends now."""
    topic = settings.topic(name)
    count = log.partitions([topic])[topic]
    numbers = range(count) if user_id is None else [partition_of(user_id.encode(), count)]
    return {place: stable for place, (_, stable) in log.ends((topic, one) for one in numbers).items()}


def _answered(
    settings: Settings, log: CommittedLog, command: Command, starts: Mapping[Place, int], copies: int,
    deadline: float, wait_s: float,
) -> list[Answer]:  # fmt: skip
    found: list[Answer] = []
    for message in _until(log, settings.topic(ANSWERS), starts, deadline):
        answer = Answer.from_bytes(message.value())
        if answer.command_id == command.command_id:
            found.append(answer)
        if len(found) == copies:
            return found
    so_far = "not answered yet" if copies == 1 else f"answered by {len(found)} of {copies} tasks"
    raise NotAnswered(
        f"ordered (command {command.command_id}), but {so_far} after {wait_s:g} s: the order stands, and is "
        "carried out as soon as a worker runs"
    )


def _settled(
    settings: Settings, log: CommittedLog, payment_id: str, starts: Mapping[Place, int], deadline: float
) -> ChargeResult | None:
    newest = None
    for message in _until(log, settings.topic(RESULTS), starts, deadline):
        result = ChargeResult.from_bytes(message.value())
        if result.payment_id == payment_id:
            newest = result
            if result.status not in OPEN:
                break
    return newest


def _until(
    log: CommittedLog, topic: str, starts: Mapping[Place, int], deadline: float
) -> Iterator[Message]:
    """Every record from these offsets on, until the deadline."""
    for message in log.follow(topic, starts, only=starts):
        if message is not None:
            yield message
        if time.monotonic() > deadline:
            return
