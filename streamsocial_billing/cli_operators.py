"""The commands with which people order something: each waits until the workers have answered."""

from __future__ import annotations

import sys
from typing import Any

import click
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.answers import DONE, order
from streamsocial_billing.cli_shared import (
    ACTOR,
    GATEWAY_NAME,
    REASON,
    one_line_errors,
    the_settings,
    waiting,
)
from streamsocial_billing.clock_texts import utc
from streamsocial_billing.commands import ordered_now
from streamsocial_billing.events import GATEWAYS, BadInput, is_id
from streamsocial_billing.resolve_command import RESOLVE, STATUSES, Order
from streamsocial_billing.switching import START, STOP, newest_of, ordered, switches_now
from tables.gateway_switches import repeated_order

NAME = click.argument("name", type=GATEWAY_NAME)
WAIT = waiting("the workers' answers")


@faust_cli.group(invoke_without_command=True)
@click.pass_context
def gateways(ctx: click.Context) -> None:
    """List the gateways that are stopped; stop, start one."""
    if ctx.invoked_subcommand is None:
        one_line_errors(_list)


@gateways.command("stop")
@NAME
@REASON
@ACTOR
@WAIT
def gateways_stop(name: str, reason: str, actor: str, wait_s: float) -> None:
    """Call NAME no more, anywhere, until it is started: its payments wait."""
    _order(STOP, actor, reason, None, wait_s, gateway=name)


@gateways.command("start")
@NAME
@click.option("--account", help="Go on with this account, though open payments belong to another one.")
@REASON
@ACTOR
@WAIT
def gateways_start(name: str, account: str | None, reason: str, actor: str, wait_s: float) -> None:
    """Call NAME again: what waits is tried at once."""
    _order(START, actor, reason, None, wait_s, gateway=name, account=account)


@faust_cli.command()
@click.argument("payment", metavar="USER/PAYMENT")
@click.option("--status", required=True, type=click.Choice(STATUSES))
@click.option("--gateway-ref", help="The gateway's id of the charge or refund; needed for succeeded.")
@REASON
@ACTOR
@WAIT
def resolve(
    payment: str, status: str, gateway_ref: str | None, reason: str, actor: str, wait_s: float
) -> None:
    """Settle a parked payment. For succeeded the gateway is asked first, and must say the same."""
    user_id, slash, payment_id = payment.partition("/")
    if not (slash and is_id(user_id) and is_id(payment_id)):
        raise click.UsageError("a payment is named USER/PAYMENT, as in alice/demo-1")
    if status == "succeeded" and gateway_ref is None:
        raise click.UsageError("succeeded needs --gateway-ref")
    details = {"payment_id": payment_id, "status": status, "gateway_ref": gateway_ref}
    try:
        Order.of(details)
    except BadInput as bad:
        raise click.UsageError(bad.detail) from None
    _order(RESOLVE, actor, reason, user_id, wait_s, **details)


def _order(command: str, actor: str, reason: str, user_id: str | None, wait_s: float, **details: Any) -> None:
    """Order it; print each answer once. Exit code 1 if one is a refusal, or missing."""

    def work() -> int:
        answers = order(the_settings(), ordered_now(command, actor, reason, user_id, **details), wait_s)
        said: dict[str, list[int]] = {}
        for one in answers:
            text = one.why if one.outcome == DONE else f"refused: {one.why}"
            said.setdefault(text, []).append(one.partition)
        for text, tasks in said.items():
            where = "" if user_id is not None else f" ({len(tasks)} of {len(answers)} tasks)"
            click.echo(f"{text}{where}", file=sys.stdout if "refused" not in text[:7] else sys.stderr)
        return 0 if all(one.outcome == DONE for one in answers) else 1

    one_line_errors(work)


def _list() -> int:
    """One line for each gateway."""
    settings = the_settings()
    switches = switches_now(settings)
    for name in sorted(GATEWAYS):
        rows = switches.get(name, [])
        stopped = [row for row in rows if row["stopped"]]
        if not stopped:
            click.echo(f"{name}: not stopped")
            continue
        newest = newest_of(stopped)
        click.echo(f"{name}: {ordered(newest)} ({len(stopped)} of {settings.partitions} tasks)")
        again = repeated_order(newest)
        if again is not None:
            click.echo(f"    stopped again at {utc(again['at'])} by {again['actor']}: {again['reason']}")
    return 0
