"""What the product changes about Faust's `worker` command: its log, no banner."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource
from faust.cli.faust import cli as faust_cli
from faust.cli.worker import worker as faust_worker

from streamsocial_billing.cli.worker_process import Worker
from streamsocial_billing.logs.lines import FORMATS

LEVEL_HELP = (
    "Log level of everything. Without it: INFO for the lines of the billing worker, WARN for those of the "
    "libraries it uses."
)
LEVELS = {"CRIT": "CRITICAL", "WARN": "WARNING"}  # Faust's names, the standard library's
LOGFILE_HELP = "Append the log to this file instead of writing it to stderr."


def _no_banner(_command: Any, _worker: Any) -> None:
    """Nothing: the line "ready" says what a banner would."""


def _chosen_format(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    Worker.chosen_format = value or Worker.chosen_format


def _note_level(option: click.Parameter) -> None:
    """Faust cannot tell its default from the same word on the command line; we can."""
    faust_s = option.callback

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if ctx.get_parameter_source("loglevel") is ParameterSource.COMMANDLINE:
            Worker.chosen_level = LEVELS.get(value.upper(), value.upper())
        return faust_s(ctx, param, value) if faust_s is not None else value

    option.callback = callback


def _change(options: list[click.Parameter]) -> None:
    for option in options:
        if isinstance(option, click.Option) and option.name == "loglevel":
            _note_level(option)
            option.help, option.show_default = LEVEL_HELP, False
        if isinstance(option, click.Option) and option.name == "logfile":
            option.help = LOGFILE_HELP


faust_worker.on_worker_created = _no_banner  # type: ignore[method-assign,assignment]
_command = faust_cli.commands["worker"]
_command.params.append(
    click.Option(
        ["--log-format"], type=click.Choice(FORMATS), expose_value=False, callback=_chosen_format,
        help="How log lines are written. Default: BILLING_LOG_FORMAT, else text.",
    )
)  # fmt: skip
_change(_command.params)
_change(faust_cli.params)
