"""What people order: records on `billing-commands`, carried out in units.

A command is an event like any other, so it is audited by being there: the topic is kept for ever. Its key is
the user_id it is about; a command about no user goes to every partition (`key_of_every_task`), so that each
task learns of it in a unit of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, field

from streamsocial_billing.domain.card_numbers import holds_card_in_id, mask_text
from streamsocial_billing.domain.events import ENCODER
from streamsocial_billing.domain.foreign_fields import BadInput, is_id, json_object
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem
from streamsocial_billing.kafka.transactions import OutcomeUnknown, RecordRefused, TransactionalWriter
from streamsocial_billing.settings import COMMANDS, Settings

MAX_TEXT: Final = 500
"""Most characters of an actor or a reason."""


class Command(Struct, frozen=True):
    """One order of a person.

    command     what to do; names the handler
    command_id  unique; its answers carry it
    actor       who ordered it
    reason      why, in that person's words
    at          milliseconds since the epoch
    user_id     whom it is about; None: nobody, every task gets it
    details     what else the handler needs; JSON
    """

    command: str
    actor: str
    reason: str
    at: int
    user_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    command_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_bytes(self) -> bytes:
        """The record's value on `billing-commands`."""
        return ENCODER.encode(
            {
                "command": self.command, "command_id": self.command_id, "actor": self.actor,
                "reason": self.reason, "at": self.at, "user_id": self.user_id,
                "details": dict(self.details),
            }
        )  # fmt: skip

    def subject(self) -> str:
        """What is ordered of whom, for the log: "unsubscribe alice/42"."""
        named = (self.details.get(name) for name in ("payment_id", "subscription_id", "gateway"))
        what = next((mask_text(one[:64]) for one in named if isinstance(one, str)), "")
        return f"{self.command} {'/'.join(part for part in (self.user_id, what) if part)}".strip()

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Command:
        """Read a record of `billing-commands`; raises BadInput, never anything else.

        What this reads can be answered: it has a command_id, and no id is a card number.
        """
        data = json_object(value or b"")
        texts = [data.get(name) for name in ("command", "actor", "reason", "command_id")]
        user_id, details, at = data.get("user_id"), data.get("details") or {}, data.get("at")
        if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
            raise BadInput("wrong_type", "command, command_id, actor, reason are texts of 500 characters")
        if not isinstance(details, dict) or type(at) is not int or not isinstance(user_id, str | None):
            raise BadInput("wrong_type", "details is an object, at ms since the epoch, user_id a text")
        command, actor, reason, command_id = map(str, texts)
        if not command_id:
            raise BadInput("missing_field", "command_id is empty: nobody could find the answer")
        if user_id is not None and not is_id(user_id):
            raise BadInput("bad_id", "user_id is not 1-64 of A-Za-z0-9_-")
        if holds_card_in_id(command_id) or (user_id is not None and holds_card_in_id(user_id)):
            raise BadInput("card_number", "an id is a card number")
        return cls(
            command=mask_text(command), actor=mask_text(actor), reason=mask_text(reason), at=at,
            user_id=user_id, details=details, command_id=command_id,
        )  # fmt: skip


def key_of_every_task(partition: int) -> bytes:
    """The key of the copy for one task; no user_id holds a colon, so it is nobody's key lane."""
    return f"every:{partition}".encode()


def append_command(settings: Settings, command: Command) -> None:
    """Append a command in one transaction; raises KafkaProblem: then it is not ordered, or says it may be."""
    topic = settings.topic(COMMANDS)
    count = CommittedLog(settings).partitions([topic])[topic]
    writer = TransactionalWriter(settings, f"{settings.app_id}-command-{command.command_id}")
    try:
        writer.append(_copies(topic, command, count))
    except OutcomeUnknown as error:
        raise KafkaProblem(f"not known whether this was ordered, order again: {error}") from None
    except RecordRefused as error:
        raise KafkaProblem(f"not ordered, Kafka refuses the record: {error}") from None
    finally:
        writer.close()


def _copies(topic: str, command: Command, count: int) -> list[dict[str, Any]]:
    """The command's records: one, or one for each of `count` tasks."""
    record = {"topic": topic, "value": command.to_bytes()}
    if command.user_id is not None:
        return [record | {"key": command.user_id.encode()}]
    return [record | {"key": key_of_every_task(number), "partition": number} for number in range(count)]


def ordered_now(command: str, actor: str, reason: str, user_id: str | None = None, **details: Any) -> Command:
    """A command of this moment; card numbers do not get into its texts."""
    at = now_ms()
    return Command(
        command=command, actor=mask_text(actor), reason=mask_text(reason), at=at, user_id=user_id,
        details=details,
    )  # fmt: skip
