"""What became of each command: records on `billing-command-answers`, written in the command's unit.

So an order and its answer commit together, a refusal is as much on record as a deed, and who ordered reads
from Kafka alone whether it was done (decision 20).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from streamsocial_billing.books import now_ms
from streamsocial_billing.commands import Command, append_command
from streamsocial_billing.committed import CommittedLog, KafkaProblem
from streamsocial_billing.exactly_once import Event, Topic
from streamsocial_billing.settings import ANSWERS, COMMANDS, Settings

DONE: Final = "done"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one task.

    outcome    `done` or `refused`
    why        a sentence for people: what was done, or why not
    partition  of the task
    at         ms since the epoch
    """

    command_id: str
    command: str
    actor: str
    user_id: str | None
    partition: int
    outcome: str
    why: str
    at: int


class Answers:
    """Writes answers into the running unit."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def write(self, event: Event, command: Command, outcome: str, why: str) -> None:
        """The one answer to a command's copy."""
        answer = Answer(
            command.command_id, command.command, command.actor, command.user_id, event.partition, outcome,
            why, now_ms(),
        )  # fmt: skip
        self._topic.put_into_unit(event.key, orjson.dumps(answer))


def order(settings: Settings, command: Command, wait_s: float) -> list[Answer]:
    """Append a command; its answers, one for each copy, as soon as all of them are committed.

    Raises KafkaProblem: it was not ordered, or it was and `wait_s` seconds later an answer is missing.
    """
    log, topic = CommittedLog(settings), settings.topic(ANSWERS)
    counts = log.partitions([topic, settings.topic(COMMANDS)])
    ends = log.ends([(topic, partition) for partition in range(counts[topic])])
    append_command(settings, command)
    copies = counts[settings.topic(COMMANDS)] if command.user_id is None else 1
    starts = {place: stable for place, (_, stable) in ends.items()}
    found: list[Answer] = []
    for answer in _answers(log, topic, starts, wait_s):
        if answer.command_id == command.command_id:
            found.append(answer)
        if len(found) == copies:
            return found
    raise KafkaProblem(
        f"ordered, but answered by {len(found)} of {copies} tasks after {wait_s:g} s; it stands: a worker "
        "carries it out as soon as one runs there, or wrote a dead letter (dlq list)"
    )


def _answers(log: CommittedLog, topic: str, starts: Any, wait_s: float) -> Iterator[Answer]:
    deadline = time.monotonic() + wait_s
    for message in log.follow(topic, starts):
        if message is not None:
            told = orjson.loads(message.value() or b"")
            yield Answer(**{name: told[name] for name in Answer.__dataclass_fields__})
        if time.monotonic() > deadline:
            return
