"""Carries out commands: the agent's handler of `billing-commands`, with exactly one answer for each."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from faust_exactly_once import Event
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.operations.replies import Answers
from streamsocial_billing.payments.bad_input import Reader

logger = logging.getLogger(__name__)


class Done(NamedTuple):
    """What a command did.

    why         a sentence for people
    payment_id  of the payment that it sent; its result comes on `charge-results`
    code        what is in the way of the rest, though the command itself is done; for machines
    """

    why: str
    payment_id: str | None = None
    code: str | None = None


class Refused(Exception):
    """Raised when all stays as it is; the text says why, for the person who ordered it."""


OnCommand = Callable[[Event, Command], Awaitable[Done]]
"""What carries a command out, inside its unit; raises Refused or BadInput before it wrote anything."""


class Commands:
    """Handles the records of `billing-commands` by their `command`.

    Whatever can be read is answered, in the unit of the deed; only a record that is no command is a dead
    letter (decision 29).
    """

    def __init__(
        self, reader: Reader, answers: Answers, handlers: Mapping[str, OnCommand]
    ) -> None:
        self._reader = reader
        self._answers = answers
        self._handlers = handlers

    async def handle(self, event: Event) -> None:
        """One record of `billing-commands`."""
        command = await self._reader.read(event, command_of, now_ms(), placed=False)
        if command is None:
            return
        try:
            done = await self._carry_out(event, command)
        except BadInput as bad:
            self._refuse(event, command, bad.detail, bad.reason)
        except Refused as refused:
            self._refuse(event, command, str(refused), None)
        else:
            self._answers.done(event, command, *done)

    async def _carry_out(self, event: Event, command: Command) -> Done:
        if command.command not in self._handlers:
            raise BadInput("unknown_command", f"no command has this name: {command.command[:40]!a}")
        if command.user_id is not None:
            if event.key != command.user_id.encode():
                raise BadInput("key_mismatch", "the record key is not the command's user_id")
            self._reader.check_partition(event)
        return await self._handlers[command.command](event, command)

    def _refuse(self, event: Event, command: Command, why: str, code: str | None) -> None:
        logger.warning("%s by %s is refused: %s", command.subject(), command.actor, why)
        self._answers.refused(event, command, why, code)


def command_of(value: bytes | None, *, key: bytes | None, now_ms: int) -> Command:
    """What a record of `billing-commands` says; raises BadInput."""
    return Command.from_bytes(value)
