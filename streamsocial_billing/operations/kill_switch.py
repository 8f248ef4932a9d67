"""Stops gateways, starts them again: what `gateways stop` and `gateways start` do in each task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, cast

from faust_exactly_once import Event
from streamsocial_billing.domain.events import GATEWAYS
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.newer_fields import keeping
from streamsocial_billing.domain.times import now_ms, utc
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.operations.commands import Command, key_of_every_task
from streamsocial_billing.operations.handler import Done, Refused
from streamsocial_billing.payments.gateway_availability import TABLE, is_newer
from streamsocial_billing.settings import Settings
from tables.gateway_switches import GatewaySwitch, first_order, read_switch, switch_key

logger = logging.getLogger(__name__)

STOP: Final = "gateways stop"
START: Final = "gateways start"
AHEAD_MS: Final = 300_000
"""How far the clock of who orders may be ahead of ours: a time in the future would hold off later orders."""


class KillSwitches:
    """Handles both commands; the table holds one row per gateway and task."""

    def __init__(self, switches: Any) -> None:
        self._switches = switches

    async def stop(self, event: Event, command: Command) -> Done:
        """From the commit of this unit on, no event of this task calls the gateway."""
        return self._turn(event, command, stopped=True)

    async def start(self, event: Event, command: Command) -> Done:
        """What waits is tried as soon as it is due."""
        return self._turn(event, command, stopped=False)

    def _turn(self, event: Event, command: Command, *, stopped: bool) -> Done:
        name, account = command.details.get("gateway"), command.details.get("account")
        if event.key != key_of_every_task(event.partition):
            raise BadInput("key_mismatch", "the record key is not that of its task")
        if name not in GATEWAYS or not isinstance(account, str | None):
            raise BadInput("unknown_gateway", f"gateway must be one of {', '.join(sorted(GATEWAYS))}")
        if command.at > now_ms() + AHEAD_MS:
            raise BadInput("bad_time", "at is more than 5 minutes in the future")
        switch: GatewaySwitch = {
            "gateway": name, "stopped": stopped, "account": account, "actor": command.actor,
            "reason": command.reason, "at": command.at, "command_id": command.command_id,
        }  # fmt: skip
        key = switch_key(event.partition, name)
        before = cast("GatewaySwitch | None", self._switches.get(key))
        if before is not None and is_newer(before, switch):
            raise Refused(f"{before['actor']} gave a later order, at {utc(before['at'])}: it applies")
        done = f"{name} is {'stopped' if stopped else 'started'}"
        if before is not None and repeats(switch, before):
            switch["first"] = first_order(before)
            done = f"{name} was already {_state(before)}, at {_origin(before)}"
        self._switches[key] = keeping(before, switch, GatewaySwitch)
        return Done(done)


def repeats(switch: GatewaySwitch, before: GatewaySwitch) -> bool:
    """True if the order leaves everything as the one before it had left it."""
    return (switch["stopped"], switch["account"]) == (before["stopped"], before["account"])


def ordered(switch: GatewaySwitch) -> str:
    """Since when the gateway is as it is, by whom, why."""
    return f"{_state(switch)} since {_origin(switch)}"


def _state(switch: GatewaySwitch) -> str:
    return "stopped" if switch["stopped"] else "started"


def _origin(switch: GatewaySwitch) -> str:
    first = first_order(switch)
    return f"{utc(first['at'])} by {first['actor']}: {first['reason']}"


def tasks_now(settings: Settings) -> int:
    """How many tasks there are by the topics, whatever this process is set to; raises KafkaProblem."""
    topic = settings.changelog(TABLE)
    return CommittedLog(settings).partitions([topic])[topic]


def switches_now(settings: Settings) -> dict[str, list[GatewaySwitch]]:
    """The committed rows by gateway, one for each task that has one; raises KafkaProblem."""
    log, topic = CommittedLog(settings), settings.changelog(TABLE)
    places = [(topic, partition) for partition in range(log.partitions([topic])[topic])]
    rows: dict[bytes, GatewaySwitch] = {}
    for message in log.read(log.ends(places)):
        rows[message.key() or b""] = read_switch(message.value() or b"")
    found: dict[str, list[GatewaySwitch]] = {}
    for row in rows.values():
        found.setdefault(row["gateway"], []).append(row)
    return found


def newest_of(rows: Sequence[GatewaySwitch]) -> GatewaySwitch:
    """The row that stands for all tasks: the newest order, since when the first of them knew the state."""
    newest = max(rows, key=lambda row: (row["at"], row["command_id"]))
    alike = [row for row in rows if row["command_id"] == newest["command_id"]]
    return min(alike, key=lambda row: first_order(row)["at"])
