"""The commands with which people order something: each waits until the workers have answered."""

from __future__ import annotations

import click
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli.sending_commands import carry_out, with_command_options
from streamsocial_billing.cli.shared import GATEWAY_NAME, one_line_errors, say, the_settings
from streamsocial_billing.domain.events import GATEWAYS
from streamsocial_billing.domain.foreign_fields import BadInput, is_id
from streamsocial_billing.domain.statuses import BY_HAND
from streamsocial_billing.domain.times import utc
from streamsocial_billing.gateways.routing import gateways_set_up
from streamsocial_billing.operations.commands import ordered_now
from streamsocial_billing.operations.kill_switch import (
    START,
    STOP,
    newest_of,
    ordered,
    switches_now,
    tasks_now,
)
from streamsocial_billing.operations.resolve import RESOLVE, ResolveDetails
from tables.gateway_switches import repeated_order

NAME = click.argument("name", type=GATEWAY_NAME)


@faust_cli.group(invoke_without_command=True)
@click.pass_context
def gateways(ctx: click.Context) -> None:
    """List the gateways that are stopped; stop, start one."""
    if ctx.invoked_subcommand is None:
        one_line_errors(_list)


@gateways.command("stop")
@NAME
@with_command_options
def gateways_stop(name: str, reason: str, actor: str, wait_s: float, no_wait: bool) -> None:
    """Stop calling NAME, on every worker, until it is started: its payments wait."""
    carry_out(ordered_now(STOP, actor, reason, gateway=name), wait_s, no_wait=no_wait)


@gateways.command("start")
@NAME
@click.option("--account", help="Go on with this account, though open payments belong to another one.")
@with_command_options
def gateways_start(
    name: str, account: str | None, reason: str, actor: str, wait_s: float, no_wait: bool
) -> None:
    """Call NAME again: what waits is tried at once."""
    started = ordered_now(START, actor, reason, gateway=name, account=account)
    carry_out(started, wait_s, no_wait=no_wait)


@faust_cli.command()
@click.argument("payment", metavar="USER/PAYMENT")
@click.option("--status", required=True, type=click.Choice(BY_HAND), help="What it is from now on; final.")
@click.option("--gateway-ref", help="The gateway's id of the charge or refund; needed for succeeded.")
@with_command_options
def resolve(
    payment: str, status: str, gateway_ref: str | None, reason: str, actor: str, wait_s: float, no_wait: bool
) -> None:
    """Settle a parked payment. For succeeded the gateway is asked first, and must say the same."""
    user_id, slash, payment_id = payment.partition("/")
    if not (slash and is_id(user_id) and is_id(payment_id)):
        raise click.UsageError("a payment is named USER/PAYMENT, as in alice/demo-1")
    if status == "succeeded" and gateway_ref is None:
        raise click.UsageError("succeeded needs --gateway-ref")
    details = {"payment_id": payment_id, "status": status, "gateway_ref": gateway_ref}
    try:
        ResolveDetails.of(details)
    except BadInput as bad:
        raise click.UsageError(bad.detail) from None
    carry_out(ordered_now(RESOLVE, actor, reason, user_id, **details), wait_s, no_wait=no_wait)


def _list() -> int:
    """One line for each gateway."""
    settings = the_settings()
    switches, tasks = switches_now(settings), tasks_now(settings)
    here = gateways_set_up(settings)
    for name in sorted(GATEWAYS):
        rows = switches.get(name, [])
        stopped = [row for row in rows if row["stopped"]]
        if not stopped:
            click.echo(f"{name}: not stopped" + ("" if name in here else "; not set up in this environment"))
            continue
        newest = newest_of(stopped)
        say(f"{name}: {ordered(newest)} ({len(stopped)} of {tasks} tasks)")
        again = repeated_order(newest)
        if again is not None:
            say(f"    stopped again at {utc(again['at'])} by {again['actor']}: {again['reason']}")
    return 0
