"""Orders to the application on one task, with what became of them."""

from __future__ import annotations

from typing import Any

import orjson
from support.one_task import OneTask

from streamsocial_billing.operations.commands import Command, key_of_every_task
from streamsocial_billing.operations.kill_switch import START, STOP
from streamsocial_billing.operations.resolve import RESOLVE
from streamsocial_billing.settings import ANSWERS, COMMANDS


def answers(lab: OneTask) -> list[dict[str, Any]]:
    """Every answer so far."""
    return [orjson.loads(record.value) for record in lab.sent(ANSWERS)]


def order(lab: OneTask, command: Command) -> dict[str, Any]:
    """Append a command as the command line does, handle it; its answer."""
    before = len(answers(lab))
    key = key_of_every_task(0) if command.user_id is None else command.user_id.encode()
    lab.append(COMMANDS, key, command.to_bytes())
    lab.handle()
    (answer,) = answers(lab)[before:]
    return answer


def switch(
    lab: OneTask, *, stop: bool, gateway: str = "simulated", at: int | None = None, **more: Any
) -> dict[str, Any]:
    """`gateways stop` or `gateways start`."""
    at = lab.now_ms if at is None else at
    word = STOP if stop else START
    return order(lab, Command(word, "ann", "maintenance", at, details={"gateway": gateway, **more}))


def resolve(
    lab: OneTask, status: str, gateway_ref: str | None = None, payment_id: str = "p1", user_id: str = "u1"
) -> dict[str, Any]:
    """`resolve u1/p1`."""
    details = {"payment_id": payment_id, "status": status, "gateway_ref": gateway_ref}
    return order(lab, Command(RESOLVE, "ann", "the bank says so", lab.now_ms, user_id, details))
