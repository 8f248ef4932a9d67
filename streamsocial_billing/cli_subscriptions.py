"""The commands with which people order, change, cancel, list subscriptions."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import click
import orjson
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli_shared import (
    ACTOR,
    GATEWAY_NAME,
    REASON,
    give_up,
    one_line_errors,
    the_settings,
)
from streamsocial_billing.events import BadInput, is_id
from streamsocial_billing.subscription_orders import order, subscriptions_of


@faust_cli.group()
def subscriptions() -> None:
    """Order, change, cancel, list the subscriptions of a user."""


def _order(command: str, user: str, actor: str, reason: str, **details: Any) -> None:
    def work() -> int:
        try:
            click.echo(order(the_settings(), command, user, actor, reason, **details))
        except BadInput as bad:
            give_up(f"not ordered, {bad}")
        return 0

    one_line_errors(work)


@subscriptions.command("add")
@click.argument("user")
@click.argument("subscription_id")
@click.option("--amount-minor", required=True, type=int, help="Of each period, in minor units.")
@click.option("--currency", required=True)
@click.option("--payment-method", required=True, help="A token of the gateway.")
@click.option("--gateway", default="simulated", show_default=True, type=GATEWAY_NAME)
@click.option("--product", type=click.Choice(["subscription", "gift"]), default="subscription")
@click.option("--interval", type=click.Choice(["day", "week", "month", "year"]), default="month")
@click.option("--starts", type=click.DateTime(), help="UTC; the first period begins then. Default: now.")
@click.option("--periods", type=click.IntRange(min=1), help="How many are paid. Default: until cancelled.")
@REASON
@ACTOR
def subscriptions_add(user: str, starts: Any, actor: str, reason: str, **details: Any) -> None:
    """Order a subscription: charged at once, unless it starts later, then at each period's beginning."""
    starts_at = None if starts is None else round(starts.replace(tzinfo=UTC).timestamp() * 1000)
    _order("subscribe", user, actor, reason, starts_at=starts_at, **details)


@subscriptions.command("cancel")
@click.argument("user")
@click.argument("subscription_id")
@click.option("--at-once", is_flag=True, help="Now. Default: at the end of what is paid for.")
@REASON
@ACTOR
def subscriptions_cancel(user: str, subscription_id: str, at_once: bool, actor: str, reason: str) -> None:
    """Renew a subscription no more."""
    _order("unsubscribe", user, actor, reason, subscription_id=subscription_id, at_once=at_once)


@subscriptions.command("change")
@click.argument("user")
@click.argument("subscription_id")
@click.option("--amount-minor", type=int, help="The price from the next period on.")
@click.option("--payment-method", help="A token; what is past due is tried with it at once.")
@click.option("--gateway", type=GATEWAY_NAME, help="Of that token, if it is another one.")
@REASON
@ACTOR
def subscriptions_change(
    user: str, subscription_id: str, amount_minor: int | None, payment_method: str | None,
    gateway: str | None, actor: str, reason: str,
) -> None:  # fmt: skip
    """Change the price, or the payment method, of a subscription."""
    if (amount_minor is None) == (payment_method is None) or (gateway and payment_method is None):
        raise click.UsageError("give either --amount-minor or --payment-method (with its --gateway)")
    if payment_method is None:
        _order("change-plan", user, actor, reason, subscription_id=subscription_id, amount_minor=amount_minor)
    _order(
        "update-payment-method", user, actor, reason, subscription_id=subscription_id,
        payment_method=payment_method, gateway=gateway,
    )  # fmt: skip


@subscriptions.command("list")
@click.argument("user")
def subscriptions_list(user: str) -> None:
    """Print a user's subscriptions as JSON lines."""
    if not is_id(user):
        raise click.UsageError("a user_id is 1-64 of A-Z a-z 0-9 _ -")

    def work() -> int:
        for subscription_id, sub in sorted(subscriptions_of(the_settings(), user).items()):
            click.echo(orjson.dumps({"subscription_id": subscription_id} | sub).decode())
        return 0

    one_line_errors(work)
