"""The command line: Faust's own commands with those of the payments app beside them."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from streamsocial_billing.domain.statuses import STATUSES

try:
    import faust
except ImportError as missing:
    if not any(one.startswith(("-L", "--loop")) for one in sys.argv):
        raise
    sys.stderr.write(f"streamsocial-billing: --loop: {missing}\n")  # Faust imports its module at once
    raise SystemExit(2) from None
from faust.cli.faust import cli as faust_cli

# each registers its commands
from streamsocial_billing.cli import dead_letters as dead_letters
from streamsocial_billing.cli import inherited as inherited
from streamsocial_billing.cli import lab as lab
from streamsocial_billing.cli import operators as operators
from streamsocial_billing.cli import reconciliation as reconciliation
from streamsocial_billing.cli import subscriptions as subscriptions
from streamsocial_billing.cli import worker as worker
from streamsocial_billing.cli.inherited_options import add_help
from streamsocial_billing.cli.results import EVERYTHING, Wanted, follow_results
from streamsocial_billing.cli.shared import (
    GATEWAY_NAME,
    MOMENT,
    NAME,
    datadir_of,
    give_up,
    one_line_errors,
    say_where,
    waiting,
)
from streamsocial_billing.cli.shared import the_app as the_app
from streamsocial_billing.cli.shared import the_settings as the_settings
from streamsocial_billing.cli.wrong_values import plain
from streamsocial_billing.data_folder import LEDGER, default_ledger
from streamsocial_billing.domain.events import PRODUCTS

GATEWAY_PORT = 8420


def run_command() -> NoReturn:
    """Run what is asked for; what an operator can mend is one line on stderr, exit code 1 (usage: 2)."""
    app = the_app()
    _take_datadir(app, sys.argv[1:])
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
        where = ctx.command_path if ctx else NAME
        give_up(f"{plain(exc.format_message())} (see {where} --help)", exc.exit_code)
    except click.Abort:
        raise SystemExit(130) from None
    except OSError as exc:  # a --workdir, say
        give_up(exc)
    except (ImportError, AttributeError) as exc:
        if not {"-A", "--app"} & {one.partition("=")[0] for one in sys.argv[1:]}:
            raise
        give_up(f"--app: {exc}: leave it out, this command has its app", 2)
    raise SystemExit(code if isinstance(code, int) else 0)


def _take_datadir(app: faust.App, arguments: list[str]) -> None:
    """Let -D count as --datadir does: Faust looks for the long name alone before the app is made."""
    for place, one in enumerate(arguments):
        if one in faust_cli.commands:
            return
        if one.startswith("-D") and (given := one[2:] or "".join(arguments[place + 1 : place + 2])):
            app.conf.datadir = Path(given.replace("{conf.name}", app.conf.id))


@faust_cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--gateway", type=GATEWAY_NAME,
    help="Stamped on payments that name none. Default: BILLING_DEFAULT_GATEWAY, else the only one set up.",
)  # fmt: skip
@click.pass_context
def submit(ctx: click.Context, file: Any, gateway: str | None) -> None:
    """Append payments: JSON lines from FILE or stdin.

    Each goes with its "requested" metric or not at all. Bad lines are named on stderr with their number;
    the others go through. Exit code 1 if there were any.
    """
    from streamsocial_billing.intake.submit import submit_lines

    def work() -> int:
        accepted, refused = submit_lines(
            the_settings(), say_where(datadir_of(ctx, the_app().conf.datadir)), file, default_gateway=gateway
        )
        click.echo(f"{accepted} accepted, {refused} refused")
        return 1 if refused else 0

    one_line_errors(work)


@faust_cli.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--user", help="Only of this user_id; only that user's partition is read.")
@click.option("--payment", help="Only of this payment_id.")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUSES),
    help="Only of this status; may be given several times.",
)  # fmt: skip
@click.option("--gateway", type=GATEWAY_NAME, help="Only of this gateway.")
@click.option("--product", type=click.Choice(sorted(PRODUCTS)), help="Only of this product.")
@click.option("--since", type=MOMENT, help="Only processed at this time or later, UTC: 2026-12-31T12:00.")
@click.option("--until", type=MOMENT, help="Only processed before this time.")
def results(
    follow: bool, user: str | None, payment: str | None, statuses: tuple[str, ...], gateway: str | None,
    product: str | None, since: int | None, until: int | None,
) -> None:  # fmt: skip
    """Print the committed charge results as JSON lines, oldest first within a partition.

    Every filter must be met. A terminal shows on stderr how far the reading is.
    """
    wanted = Wanted(
        user_id=user, payment_id=payment, statuses=frozenset(statuses), gateway=gateway, product=product,
        since=since, until=until,
    )  # fmt: skip

    def work() -> int:
        follow_results(
            the_settings(), follow=follow, out=sys.stdout, err=sys.stderr,
            wanted=EVERYTHING if wanted == EVERYTHING else wanted,
        )  # fmt: skip
        return 0

    one_line_errors(work)


@faust_cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=GATEWAY_PORT, show_default=True, type=click.IntRange(1, 65535),
    help="Port to listen on; workers find it by BILLING_GATEWAY_URL.",
)  # fmt: skip
@click.option(
    "--ledger", type=click.Path(dir_okay=False), help=f"SQLite file of the charges. Default: {LEDGER}."
)
@click.option(
    "--name", "names", multiple=True,
    help="A host by which others call it, beside addresses and this machine's name; may be repeated.",
)  # fmt: skip
def gateway(host: str, port: int, ledger: str | None, names: tuple[str, ...]) -> None:
    """Run the simulated payment gateway with its durable ledger."""
    from streamsocial_billing.gateways.simulator.server import run

    where = ledger or say_where(default_ledger())
    raise SystemExit(run(host, port, where, the_settings().log_format, names))


@faust_cli.command()
@waiting("what is under way")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option(
    "--require-settled", is_flag=True, help="Exit code 3 if payments are open, or events not handled yet."
)
def audit(wait_s: float, as_json: bool, require_settled: bool) -> None:
    """Compare results, gateway, tables, by count and by money.

    Exit code 0 if nothing differs, 1 if something does, or the gateway cannot be read. A payment that is open
    is no difference: it is listed with what it waits for.
    """
    from streamsocial_billing.audit.run import run_audit
    from streamsocial_billing.audit.showing import report_to

    def work() -> int:
        report = run_audit(the_settings(), wait_s=wait_s)
        report_to(report, sys.stdout, as_json=as_json)
        if not report.ok:
            return 1
        return 3 if require_settled and not report.settled else 0

    one_line_errors(work)


add_help(faust_cli)
