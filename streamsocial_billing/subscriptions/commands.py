"""What operators do with subscriptions: order, look."""

from __future__ import annotations

from typing import Any

from faust_exactly_once import partition_of
from streamsocial_billing.domain.money import format_minor
from streamsocial_billing.domain.results import ChargeResult
from streamsocial_billing.domain.times import utc
from streamsocial_billing.gateways.routing import with_gateway
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.operations.commands import Command, ordered_now
from streamsocial_billing.settings import Settings
from streamsocial_billing.subscriptions.terms import check_order
from tables.subscriptions import Subscription, read_subscription


def subscription_command(
    settings: Settings, command: str, user_id: str, actor: str, reason: str, **details: Any
) -> Command:
    """An order of this moment; details that are None are left out, a new subscription gets a gateway.

    Raises BadInput for an order that could never be carried out.
    """
    given = {name: value for name, value in details.items() if value is not None}
    if command == "subscribe":
        given = with_gateway(given, settings)
    ordered = ordered_now(command, actor, reason, user_id, **given)
    check_order(ordered)
    return ordered


def charge_text(charge: ChargeResult, sub: Subscription | None) -> str:
    """What became of the payment that an order sent, and of the subscription by it.

    `charge` is its final ChargeResult, `sub` the subscription after it.
    """
    amount = format_minor(charge.amount_minor, charge.currency)
    said = f"charge of {amount} {charge.status}"
    if charge.reason is not None:
        said += f": {_words(charge.reason)}"
    if charge.status == "succeeded" or sub is None:
        return said
    said += f"; the subscription is {_words(sub['state'])}"
    if sub["state"] == "past_due" and sub["next_at"] is not None:
        said += f", next try at {utc(sub['next_at'])}"
    if sub["state"] == "unpaid":
        said += ", no further try before a new payment method"
    return said


def _words(code: str) -> str:
    return code.replace("_", " ")


def subscriptions_of(settings: Settings, user_id: str) -> dict[str, Subscription]:
    """The user's subscriptions as committed, by subscription_id; reads the table's changelog.

    No worker need run. Raises KafkaProblem.
    """
    topic, log = settings.changelog("subscriptions"), CommittedLog(settings)
    place = topic, partition_of(user_id.encode(), log.partitions([topic])[topic])
    found = {}
    for message in log.read(log.ends([place])):
        key_user, _, subscription_id = (message.key() or b"").decode().partition("/")
        if key_user == user_id and message.value() is not None:
            found[subscription_id] = read_subscription(message.value() or b"")
    return found
