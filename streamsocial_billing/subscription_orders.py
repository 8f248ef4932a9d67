"""What operators do with subscriptions: order, look."""

from __future__ import annotations

from typing import Any

import orjson

from streamsocial_billing.commands import append_command, ordered_now
from streamsocial_billing.committed import CommittedLog
from streamsocial_billing.exactly_once import partition_of
from streamsocial_billing.settings import Settings
from streamsocial_billing.subscription_terms import check_order


def order(settings: Settings, command: str, user_id: str, actor: str, reason: str, **details: Any) -> str:
    """Append an order to `billing-commands`; says what was ordered.

    Details that are None are left out. Raises BadInput for an order that could never be carried out (nothing
    is appended then), KafkaProblem.
    """
    given = {name: value for name, value in details.items() if value is not None}
    ordered = ordered_now(command, actor, reason, user_id, **given)
    check_order(ordered)
    append_command(settings, ordered)
    return f"{command} {user_id}/{given['subscription_id']} is ordered ({ordered.command_id})"


def subscriptions_of(settings: Settings, user_id: str) -> dict[str, Any]:
    """The user's subscriptions as committed, by subscription_id; reads the table's changelog.

    No worker need run. Raises KafkaProblem.
    """
    topic, log = settings.changelog("subscriptions"), CommittedLog(settings)
    place = topic, partition_of(user_id.encode(), log.partitions([topic])[topic])
    found = {}
    for message in log.read(log.ends([place])):
        key_user, _, subscription_id = (message.key() or b"").decode().partition("/")
        if key_user == user_id and message.value() is not None:
            found[subscription_id] = orjson.loads(message.value() or b"")
    return found
