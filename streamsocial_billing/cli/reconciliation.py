"""The command that compares our books with what gateways say."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from faust.cli.faust import cli as faust_cli

from streamsocial_billing.cli.shared import give_up, one_line_errors, the_settings
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.kafka.committed import KafkaProblem


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
    "--report-zone",
    help="Time zone of the settlement files (Europe/Berlin), where a report's times are not UTC.",
)
@click.option(
    "--decimal-separator", type=click.Choice(["auto", ".", ","]), default="auto", show_default=True,
    help="What stands before the decimals in settlement files; auto: as each file shows.",
)
@click.option(
    "--link-base", default="http://127.0.0.1:6066", show_default=True, help="A worker, for links to payments."
)
def reconcile(
    files: tuple[Path, ...], dry_run: bool, output: Path, as_of: str | None, since: str | None,
    report_zone: str | None, decimal_separator: str, link_base: str,
) -> None:  # fmt: skip
    """Compare our books with the gateways' lists and the settlement files.

    What can be repaired is repaired by events. Exit code 0: no open break, 1: open breaks, 2: an input is bad
    or cannot be read, nothing was changed.
    """
    from streamsocial_billing.gateways.settlement_lines import Reading
    from streamsocial_billing.reconciliation.command import BAD_INPUT, moment, run_command, zone_of
    from streamsocial_billing.reconciliation.run import Wish

    def work() -> int:
        try:
            decimal = None if decimal_separator == "auto" else decimal_separator
            reading = Reading(decimal, zone_of(report_zone) if report_zone else None)
            wish = Wish(
                output=output, files=files, dry_run=dry_run, as_of=moment(as_of) if as_of else None,
                since=moment(since) if since else 0, link_base=link_base, reading=reading,
            )  # fmt: skip
            return run_command(the_settings(), wish, sys.stdout, sys.stderr)
        except (InputRefused, KafkaProblem, ValueError, OSError) as exc:
            give_up(exc, BAD_INPUT)

    one_line_errors(work)
