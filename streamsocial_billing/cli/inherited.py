"""Faust's own commands, as far as they would not do here what they say: replaced, or refused with a line."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class
from faust.cli.faust import cli as faust_cli

from faust_exactly_once import folder_of_its_own
from streamsocial_billing import __version__
from streamsocial_billing.cli.shared import NAME, give_up, one_line_errors
from streamsocial_billing.framework_options import WEB_BIND

COMPLETE_VAR: Final = f"_{NAME.replace('-', '_').upper()}_COMPLETE"
SHELLS: Final = ("bash", "fish", "zsh")
USAGE: Final = 2

REFUSED: Final = {
    "send": "send would go past the checks and the transaction of the intake: use submit",
    "model": "no record of this app is a Faust model: the fields are in the README under A payment, Topics",
    "models": "no record of this app is a Faust model: the fields are in the README under A payment, Topics",
    "livecheck": "this app has no Faust livecheck: audit, /audit and make run check it",
    "clean-versions": "this app keeps no old versions of its tables: reset deletes those of a data folder",
}
"""Commands of Faust that make no sense here, with what to use instead."""


def _refuse(name: str, why: str) -> click.Command:
    """A command that says why it is none, whatever its arguments are; not listed by --help."""

    def say(arguments: tuple[str, ...]) -> None:
        give_up(f"{name} is refused: {why}", USAGE)

    return click.Command(
        name, callback=say, params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        help=why, hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True},
    )  # fmt: skip


for _name, _why in REFUSED.items():
    faust_cli.add_command(_refuse(_name, _why))


@faust_cli.command()
@click.argument("shell", required=False, type=click.Choice(SHELLS))
def completion(shell: str | None) -> None:
    """Print a script for SHELL (default: that of $SHELL) that completes our commands.

    In bash: eval "$(streamsocial-billing completion bash)"
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    maker = get_completion_class(chosen) if chosen in SHELLS else None
    if maker is None:
        raise click.UsageError(f"name a shell: {', '.join(SHELLS)}")
    click.echo(maker(faust_cli, {}, NAME, COMPLETE_VAR).source())


@faust_cli.command()
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
def reset(yes: bool) -> None:
    """Delete the tables in the data folder (--datadir); the next worker fills them again from Kafka.

    Says what it would delete, then asks. Refused while a worker uses the folder. Exit code 1 if nothing was
    deleted because nobody said yes.
    """
    from streamsocial_billing.cli.shared import the_app

    app = the_app()
    folder, tables, names = Path(app.conf.datadir), Path(app.conf.tabledir), set(app.tables)

    def work() -> int:
        if not tables.is_dir():
            click.echo(f"no tables in {folder}: nothing to delete")
            return 0
        with folder_of_its_own(folder, advice="stop it first"):
            found = [path for path in sorted(tables.glob("*.db")) if path.stem.rpartition("-")[0] in names]
            return _delete(found, folder, sure=yes)

    one_line_errors(work)


def _delete(found: list[Path], folder: Path, *, sure: bool) -> int:
    if not found:
        click.echo(f"no tables in {folder}: nothing to delete")
        return 0
    per_table = Counter(path.stem.rpartition("-")[0] for path in found)
    click.echo(f"to delete in {found[0].parent}:")
    for name, count in sorted(per_table.items()):
        click.echo(f"  {name}: {count} {'partition' if count == 1 else 'partitions'}")
    click.echo("Kafka is not touched: the next worker on this folder reads the changelogs from the start.")
    try:
        sure = sure or click.confirm("Delete them?")
    except click.Abort:  # nobody is there to answer
        give_up("nothing was deleted: answer y, or say --yes")
    if not sure:
        give_up("nothing was deleted")
    for path in found:
        shutil.rmtree(path)
    click.echo(f"{len(found)} {'database' if len(found) == 1 else 'databases'} deleted")
    return 0


def _tell_the_truth() -> None:
    """What Faust's own texts say of other apps, or of itself."""
    faust_cli.help = "StreamSocial billing: payments charged exactly once on Kafka."
    faust_cli.params = [one for one in faust_cli.params if one.name != "version"]
    click.version_option(
        __version__, prog_name=NAME, message=f"%(prog)s %(version)s (Faust {version('faust-streaming')})"
    )(faust_cli)
    for option in faust_cli.commands["worker"].params:
        if isinstance(option, click.Option) and option.name in WORKER_HELP:
            option.help = WORKER_HELP[option.name]
    for option in faust_cli.params:
        if isinstance(option, click.Option) and option.name == "datadir":
            option.show_default = "data/APP_ID"  # see data_folder.py


WORKER_HELP: Final = {
    "web_host": f"Host name under which other workers reach this one (default: {WEB_BIND}).",
}
_tell_the_truth()
