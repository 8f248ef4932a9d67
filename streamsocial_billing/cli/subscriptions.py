"""The commands with which people order, change, cancel, list subscriptions."""

from __future__ import annotations

from datetime import UTC
from typing import Any, NoReturn

import click
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli.sending_commands import carry_out, show_answers, with_command_options
from streamsocial_billing.cli.shared import (
    GATEWAY_NAME,
    give_up,
    one_line_errors,
    say,
    say_json,
    the_settings,
)
from streamsocial_billing.domain.foreign_fields import BadInput, is_id
from streamsocial_billing.operations.client import NOT_ANSWERED, Became
from streamsocial_billing.subscriptions.commands import charge_text, subscription_command, subscriptions_of


@faust_cli.group()
def subscriptions() -> None:
    """Order, change, cancel, list the subscriptions of a user."""


def _order(
    command: str, user: str, subscription_id: str, *, actor: str, reason: str, wait_s: float, no_wait: bool,
    **details: Any,
) -> NoReturn:  # fmt: skip
    try:
        ordered = subscription_command(
            the_settings(), command, user, actor, reason, subscription_id=subscription_id, **details
        )
    except BadInput as bad:
        give_up(f"not ordered: {bad}")
    carry_out(
        ordered, wait_s, no_wait=no_wait, show=lambda became: _show(became, user, subscription_id, wait_s)
    )


def _show(became: Became, user: str, subscription_id: str, wait_s: float) -> int:
    """What became of the order, and of the payment that it sent, in one line."""
    payment_id = became.payment_id()
    if payment_id is None:
        return show_answers(became)
    (answer,) = became.answers
    if became.charge_is_open() or became.charge is None:
        status = "has no result" if became.charge is None else f"is {became.charge.status}"
        say(f"{answer.why}; its payment {payment_id} {status} after {wait_s:g} s", err=True)
        return NOT_ANSWERED
    sub = subscriptions_of(the_settings(), user).get(subscription_id)
    paid = became.charge.status == "succeeded" or (sub is not None and sub["state"] == "active")
    say(f"{answer.why}; {charge_text(became.charge, sub)}", err=not paid)
    return 0 if paid else 1


SUBSCRIPTION = click.argument("subscription_id")
USER = click.argument("user")


@subscriptions.command("add")
@USER
@SUBSCRIPTION
@click.option("--amount-minor", required=True, type=int, help="Of each period, in minor units.")
@click.option("--currency", required=True, help="ISO 4217, EUR say.")
@click.option("--payment-method", required=True, help="A token of the gateway.")
@click.option(
    "--gateway", type=GATEWAY_NAME,
    help="The gateway of that token. Default: BILLING_DEFAULT_GATEWAY, else the only one set up.",
)
@click.option(
    "--product", type=click.Choice(["subscription", "gift"]), default="subscription", show_default=True,
    help="What its payments are for.",
)  # fmt: skip
@click.option(
    "--interval", type=click.Choice(["day", "week", "month", "year"]), default="month", show_default=True,
    help="How long a period is.",
)  # fmt: skip
@click.option("--starts", type=click.DateTime(), help="UTC; the first period begins then. Default: now.")
@click.option("--periods", type=click.IntRange(min=1), help="How many are paid. Default: until cancelled.")
@with_command_options
def subscriptions_add(user: str, subscription_id: str, starts: Any, **details: Any) -> None:
    """Add a subscription: charged now, unless it starts later, then at the beginning of each period.

    Waits for the result of the first charge, too. Exit code 0: added (and charged), 1: refused, or added but
    not charged, 3: ordered, not answered yet.
    """
    starts_at = None if starts is None else round(starts.replace(tzinfo=UTC).timestamp() * 1000)
    _order("subscribe", user, subscription_id, starts_at=starts_at, **details)


@subscriptions.command("cancel")
@USER
@SUBSCRIPTION
@click.option("--at-once", is_flag=True, help="Now. Default: at the end of what is paid for.")
@with_command_options
def subscriptions_cancel(user: str, subscription_id: str, **details: Any) -> None:
    """Cancel a subscription: it is renewed no more. Exit codes as of `gateways stop`."""
    _order("unsubscribe", user, subscription_id, **details)


@subscriptions.command("change")
@USER
@SUBSCRIPTION
@click.option("--amount-minor", type=int, help="The price from the next period on.")
@click.option("--payment-method", help="A token; what is past due is tried with it at once.")
@click.option("--gateway", type=GATEWAY_NAME, help="Of that token. Default: the subscription's.")
@with_command_options
def subscriptions_change(
    user: str, subscription_id: str, amount_minor: int | None, payment_method: str | None,
    gateway: str | None, **options: Any,
) -> None:  # fmt: skip
    """Change the price, or the payment method, of a subscription.

    Waits for the result of the charge, too, if something past due is tried at once. Exit codes as of `add`.
    """
    if (amount_minor is None) == (payment_method is None) or (gateway and payment_method is None):
        raise click.UsageError("give either --amount-minor or --payment-method (with its --gateway)")
    if payment_method is None:
        _order("change-plan", user, subscription_id, amount_minor=amount_minor, **options)
    _order(
        "update-payment-method", user, subscription_id, payment_method=payment_method, gateway=gateway,
        **options,
    )  # fmt: skip


@subscriptions.command("list")
@click.argument("user")
def subscriptions_list(user: str) -> None:
    """Print a user's subscriptions as JSON lines."""
    if not is_id(user):
        raise click.UsageError("a user_id is 1-64 of A-Z a-z 0-9 _ -")

    def work() -> int:
        for subscription_id, sub in sorted(subscriptions_of(the_settings(), user).items()):
            say_json({"subscription_id": subscription_id, **sub})
        return 0

    one_line_errors(work)
