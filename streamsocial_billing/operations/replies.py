"""What became of each command: records on `billing-command-answers`, written in the command's unit.

So an order and its answer commit together, a refusal is as much on record as a deed, and who ordered reads
from Kafka alone whether it was done (decisions 20, 29).
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Struct
from msgspec.json import Decoder

from faust_exactly_once import Event, Topic
from streamsocial_billing.domain.card_numbers import mask_text
from streamsocial_billing.domain.events import ENCODER, one_of
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.operations.commands import Command, key_of_every_task

DONE: Final = "done"
REFUSED: Final = "refused"


class Answer(Struct, frozen=True):
    """The answer of one task.

    outcome    `done` or `refused`
    why        a sentence for people: what was done, or why not
    partition  of the task
    at         ms since the epoch
    code       for machines: why it was refused (`unknown_subscription`), or, though it was done, what is in
               the way of the rest (`gateway_not_configured`); None: nothing, or a refusal without a code
    payment_id the payment that the command sent, if it sent one; its result is on `charge-results`

    Answers of a release before these two fields lack them.
    """

    command_id: str
    command: str
    actor: str
    user_id: str | None
    partition: int
    outcome: Annotated[str, one_of(frozenset({DONE, REFUSED}))]
    why: str
    at: int
    code: str | None = None
    payment_id: str | None = None

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Answer:
        """Read a record of `billing-command-answers`."""
        return _ANSWERS.decode(value or b"")


_ANSWERS: Final = Decoder(Answer)


class Answers:
    """Writes answers into the running unit."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def done(
        self, event: Event, command: Command, why: str, payment_id: str | None = None,
        code: str | None = None,
    ) -> None:  # fmt: skip
        """The one answer to a copy of a command that was carried out."""
        self._write(event, command, DONE, why, code=code, payment_id=payment_id)

    def refused(self, event: Event, command: Command, why: str, code: str | None = None) -> None:
        """The one answer to a copy of a command that changed nothing."""
        self._write(event, command, REFUSED, why, code=code)

    def _write(
        self, event: Event, command: Command, outcome: str, why: str, *, code: str | None,
        payment_id: str | None = None,
    ) -> None:  # fmt: skip
        answer = Answer(
            command_id=command.command_id, command=command.command, actor=command.actor,
            user_id=command.user_id, partition=event.partition, outcome=outcome, why=mask_text(why),
            at=now_ms(), code=code, payment_id=payment_id,
        )  # fmt: skip
        user_id = command.user_id
        key = key_of_every_task(event.partition) if user_id is None else user_id.encode()
        self._topic.put_into_unit(key, ENCODER.encode(answer))
