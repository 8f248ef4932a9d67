"""The command line: Faust's own commands with those of the payments app beside them."""

import os
import sys
from collections.abc import Callable
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import click
import faust
import orjson
from faust.cli.faust import cli as faust_cli

from streamsocial_billing import cli_operators as cli_operators  # registers its commands
from streamsocial_billing.settings import Settings, SettingsError

NAME = "streamsocial-billing"
GATEWAY_PORT = 8420


@cache
def the_app() -> faust.App:
    """The app of this process, from its environment.

    Raises:
        SystemExit: with one line if a setting is wrong.
    """
    from streamsocial_billing.application import create_app
    from streamsocial_billing.gateways.configured import configured_gateways

    settings = the_settings()
    try:
        return create_app(settings, configured_gateways(settings))
    except SettingsError as exc:
        _give_up(exc)


@cache
def the_settings() -> Settings:
    """The settings of this process, from its environment."""
    try:
        return Settings.from_environment(os.environ)
    except SettingsError as exc:
        _give_up(exc)


def main() -> NoReturn:
    """Run a command; what an operator can mend is one line on stderr, exit code 1 (usage: 2)."""
    app = the_app()
    app.finalize()
    app.worker_init()
    app.worker_init_post_autodiscover()
    try:
        code = faust_cli.main(app=app, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        raise SystemExit(exc.exit_code) from None
    except click.ClickException as exc:
        ctx = exc.ctx if isinstance(exc, click.UsageError) else None
        _give_up(f"{exc.format_message()} (see {ctx.command_path if ctx else NAME} --help)", exc.exit_code)
    except click.Abort:
        raise SystemExit(130) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _give_up(why: object, code: int = 1) -> NoReturn:
    """End with one line on stderr."""
    sys.stderr.write(f"{NAME}: {' '.join(str(why).split())}\n")
    raise SystemExit(code)


def one_line_errors(call: Callable[[], int]) -> NoReturn:
    """Run a command's work; end with its exit code, or with one line."""
    from confluent_kafka import KafkaException

    from streamsocial_billing.committed import KafkaProblem
    from streamsocial_billing.exactly_once import ExactlyOnceError

    try:
        code = call()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except (KafkaProblem, ExactlyOnceError, OSError) as exc:
        _give_up(exc)
    except KafkaException as exc:
        _give_up(RuntimeError(f"Kafka at {the_settings().broker}: {exc.args[0].str()}"))
    raise SystemExit(code)


def _datadir(ctx: click.Context) -> Path:
    given = ctx.find_root().params.get("datadir")
    folder = str(given) if given else str(the_app().conf.datadir)
    return Path(folder.replace("{conf.name}", the_settings().app_id))


@faust_cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--gateway", default="simulated", show_default=True, help="Stamped on payments that name none.")
@click.pass_context
def submit(ctx: click.Context, file: Any, gateway: str) -> None:
    """Append payments (JSON lines from FILE or stdin), each with its "requested" metric or not at all.

    Bad lines are named on stderr with their number; the others go through. Exit code 1 if there were any.
    """
    from streamsocial_billing.intake.submit import submit_lines

    def work() -> int:
        accepted, refused = submit_lines(the_settings(), _datadir(ctx), file, default_gateway=gateway)
        click.echo(f"{accepted} accepted, {refused} refused")
        return 1 if refused else 0

    one_line_errors(work)


@faust_cli.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
def results(follow: bool) -> None:
    """Print the charge results, committed ones only, as JSON lines."""
    from streamsocial_billing.results import follow_results

    def work() -> int:
        follow_results(the_settings(), follow=follow, out=sys.stdout)
        return 0

    one_line_errors(work)


@faust_cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=GATEWAY_PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option("--ledger", default="gateway.sqlite", show_default=True, type=click.Path(dir_okay=False))
def gateway(host: str, port: int, ledger: str) -> None:
    """Run the simulated payment gateway with its durable ledger."""
    from streamsocial_billing.gateways.simulator.server import run

    raise SystemExit(run(host, port, ledger))


@faust_cli.command()
@click.option(
    "--wait", "wait_s", default=30.0, show_default=True, help="Seconds to wait for what is under way."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def audit(wait_s: float, as_json: bool) -> None:
    """Compare results, the gateway's ledger, the tables by count, by money; exit code 1 if they differ."""
    from streamsocial_billing.audit import report_to, run_audit

    def work() -> int:
        report = run_audit(the_settings(), wait_s=wait_s)
        report_to(report, sys.stdout, as_json=as_json)
        return 0 if report.ok else 1

    one_line_errors(work)


@faust_cli.command()
@click.option(
    "--settlement", "files", multiple=True, type=click.Path(path_type=Path),
    help="A settlement file, loaded once for all later runs; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Write the report; no repair, nothing to Kafka, no file kept.")
@click.option(
    "--output", default="data/reconciliation", show_default=True,
    type=click.Path(path_type=Path, file_okay=False), help="Folder of the reports and of the loaded files.",
)
@click.option("--as-of", help="Ageing counts to this moment, `now` say; else to the newest record.")
@click.option("--since", help="Read the gateways' lists from this date on; else from our first result on.")
@click.option(
    "--link-base", default="http://127.0.0.1:6066", show_default=True, help="A worker, for links to payments."
)
def reconcile(
    files: tuple[Path, ...], dry_run: bool, output: Path, as_of: str | None, since: str | None, link_base: str
) -> None:
    """Hold our books against the gateways' lists and the settlement files; repair what can be repaired.

    Exit code 0: clean, 1: open breaks, 2: an input is bad or cannot be read, nothing was changed.
    """
    from streamsocial_billing.committed import KafkaProblem
    from streamsocial_billing.reconciliation import InputRefused, Wish
    from streamsocial_billing.reconciliation.command import BAD_INPUT, moment, run_command

    def work() -> int:
        try:
            wish = Wish(
                output=output, files=files, dry_run=dry_run, as_of=moment(as_of) if as_of else None,
                since=moment(since) if since else 0, link_base=link_base,
            )  # fmt: skip
            return run_command(the_settings(), wish, sys.stdout, sys.stderr)
        except (InputRefused, KafkaProblem, ValueError, OSError) as exc:
            _give_up(exc, BAD_INPUT)

    one_line_errors(work)


@faust_cli.group()
def dlq() -> None:
    """Look at dead letters; send one back, once."""


@dlq.command("list")
@click.option("--reason", help="Only letters with this reason, bad_amount say.")
@click.option("--user", help="Only letters of this user_id.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
def dlq_list(reason: str | None, user: str | None, as_json: bool) -> None:
    """Name the dead letters so far."""
    from streamsocial_billing.dead_letters import letters, replayed

    def work() -> int:
        back = replayed(the_settings())
        for one in letters(the_settings()):
            if reason not in (None, one.reason) or user not in (None, one.user_id):
                continue
            told = one.as_json() | {"replayed": one.id in back}
            if as_json:
                click.echo(orjson.dumps(told).decode())
            else:
                went = " replayed" if told["replayed"] else ""
                click.echo(f"{one.id} {one.reason} from {one.source}: {one.error}{went}")
        return 0

    one_line_errors(work)


@dlq.command("show")
@click.argument("letter_id")
def dlq_show(letter_id: str) -> None:
    """Print one letter: what is known of it, then its content."""
    from streamsocial_billing.dead_letters import letter

    def work() -> int:
        found = letter(the_settings(), letter_id)
        for name, value in found.as_json().items():
            click.echo(f"{name}: {'-' if value is None else value}")
        click.echo(f"\n{found.text()}")
        return 0

    one_line_errors(work)


@dlq.command("replay")
@click.argument("letter_id")
@click.option("--correction", type=click.File("rb"), help="A payment as JSON that goes in its place.")
@click.option("--actor", default=lambda: os.environ.get("USER", "unknown"), help="Who does it.")
@click.option("--dry-run", is_flag=True, help="Say what would happen.")
def dlq_replay(letter_id: str, correction: Any, actor: str, dry_run: bool) -> None:
    """Send a letter's event back to `payments`: once, whoever else tries at the same moment."""
    from streamsocial_billing.dead_letters import replay

    def work() -> int:
        content = correction.read() if correction is not None else None
        click.echo(replay(the_settings(), letter_id, correction=content, actor=actor, dry_run=dry_run))
        return 0

    one_line_errors(work)


@faust_cli.group()
def subscriptions() -> None:
    """Order, change, cancel, list the subscriptions of a user."""


def _who_and_why(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that each order carries."""
    actor = click.option("--actor", default=lambda: os.environ.get("USER", "unknown"), help="Who orders it.")
    return actor(click.option("--reason", required=True, help="Why; kept for ever.")(command))


def _order(command: str, user: str, actor: str, reason: str, **details: Any) -> None:
    from streamsocial_billing.events import BadInput
    from streamsocial_billing.subscription_orders import order

    def work() -> int:
        try:
            click.echo(order(the_settings(), command, user, actor, reason, **details))
        except BadInput as bad:
            _give_up(f"not ordered, {bad}")
        return 0

    one_line_errors(work)


@subscriptions.command("add")
@click.argument("user")
@click.argument("subscription_id")
@click.option("--amount-minor", required=True, type=int, help="Of each period, in minor units.")
@click.option("--currency", required=True)
@click.option("--payment-method", required=True, help="A token of the gateway.")
@click.option("--gateway", default="simulated", show_default=True)
@click.option("--product", type=click.Choice(["subscription", "gift"]), default="subscription")
@click.option("--interval", type=click.Choice(["day", "week", "month", "year"]), default="month")
@click.option("--starts", type=click.DateTime(), help="UTC; the first period begins then. Default: now.")
@click.option("--periods", type=click.IntRange(min=1), help="How many are paid. Default: until cancelled.")
@_who_and_why
def subscriptions_add(user: str, starts: Any, actor: str, reason: str, **details: Any) -> None:
    """Order a subscription: charged at once, unless it starts later, then at each period's beginning."""
    starts_at = None if starts is None else round(starts.replace(tzinfo=UTC).timestamp() * 1000)
    _order("subscribe", user, actor, reason, starts_at=starts_at, **details)


@subscriptions.command("cancel")
@click.argument("user")
@click.argument("subscription_id")
@click.option("--at-once", is_flag=True, help="Now. Default: at the end of what is paid for.")
@_who_and_why
def subscriptions_cancel(user: str, subscription_id: str, at_once: bool, actor: str, reason: str) -> None:
    """Renew a subscription no more."""
    _order("unsubscribe", user, actor, reason, subscription_id=subscription_id, at_once=at_once)


@subscriptions.command("change")
@click.argument("user")
@click.argument("subscription_id")
@click.option("--amount-minor", type=int, help="The price from the next period on.")
@click.option("--payment-method", help="A token; what is past due is tried with it at once.")
@click.option("--gateway", help="Of that token, if it is another one.")
@_who_and_why
def subscriptions_change(
    user: str, subscription_id: str, amount_minor: int | None, payment_method: str | None,
    gateway: str | None, actor: str, reason: str,
) -> None:  # fmt: skip
    """Change the price, or the payment method, of a subscription."""
    if (amount_minor is None) == (payment_method is None) or (gateway and payment_method is None):
        raise click.UsageError("give either --amount-minor or --payment-method (with its --gateway)")
    if payment_method is None:
        _order(
            "change-plan", user, actor, reason, subscription_id=subscription_id, amount_minor=amount_minor
        )
    _order(
        "update-payment-method", user, actor, reason, subscription_id=subscription_id,
        payment_method=payment_method, gateway=gateway,
    )  # fmt: skip


@subscriptions.command("list")
@click.argument("user")
def subscriptions_list(user: str) -> None:
    """Print a user's subscriptions as JSON lines."""
    from streamsocial_billing.subscription_orders import subscriptions_of

    def work() -> int:
        for subscription_id, sub in sorted(subscriptions_of(the_settings(), user).items()):
            click.echo(orjson.dumps({"subscription_id": subscription_id} | sub).decode())
        return 0

    one_line_errors(work)
