"""What every command needs: the settings, the app, options that several have, one line for an error."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import click
import faust
import orjson
from confluent_kafka import KafkaException

from faust_exactly_once import ExactlyOnceError
from streamsocial_billing.data_folder import FAUST_DEFAULT, note_on
from streamsocial_billing.domain.events import GATEWAYS
from streamsocial_billing.kafka.committed import KafkaProblem
from streamsocial_billing.logs.lines import escaped, escaped_json
from streamsocial_billing.operations.commands import MAX_TEXT
from streamsocial_billing.settings import Settings, SettingsError

NAME = "streamsocial-billing"
GATEWAY_NAME = click.Choice(sorted(GATEWAYS))


class Moment(click.ParamType):
    """A moment on the command line: `now`, a date, or a date with time; UTC unless it says otherwise.

    Its value is in milliseconds since the epoch.
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        from streamsocial_billing.reconciliation.command import moment

        try:
            return value if isinstance(value, int) else moment(value)
        except ValueError:
            self.fail(f"{value!r} is not a date or a date with a time, such as 2026-12-31T12:00", param, ctx)


MOMENT = Moment()


@cache
def the_settings() -> Settings:
    """The settings of this process, from its environment.

    Raises:
        SystemExit: with one line if one is wrong.
    """
    try:
        return Settings.from_environment(os.environ)
    except SettingsError as exc:
        give_up(exc)


@cache
def the_app() -> faust.App:
    """The app of this process, from its environment.

    Raises:
        SystemExit: with one line if a setting is wrong.
    """
    from streamsocial_billing.app import create_app
    from streamsocial_billing.gateways.configured import configured_gateways

    settings = the_settings()
    try:
        return create_app(settings, configured_gateways(settings))
    except SettingsError as exc:
        give_up(exc)


def give_up(why: object, code: int = 1) -> NoReturn:
    """End with one line on stderr; an OSError names its file first."""
    if isinstance(why, OSError) and why.filename is not None:
        why = f"{why.filename}: {why.strerror}"
    sys.stderr.write(f"{NAME}: {escaped(' '.join(str(why).split()))}\n")
    raise SystemExit(code)


def say(text: str, *, err: bool = False) -> None:
    """One line; what others wrote in it neither ends it nor commands the terminal."""
    click.echo(escaped(text), err=err)


def say_json(data: object) -> None:
    """One line of JSON, as safe."""
    click.echo(escaped_json(orjson.dumps(data).decode()))


def one_line_errors(call: Callable[[], int]) -> NoReturn:
    """Run a command's work; end with its exit code, or with one line."""
    try:
        code = call()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except KafkaProblem as exc:
        give_up(exc, exc.exit_code)
    except (ExactlyOnceError, OSError) as exc:
        give_up(exc)
    except KafkaException as exc:
        give_up(f"Kafka at {the_settings().broker}: {exc.args[0].str()}")
    raise SystemExit(code)


def say_where(used: Path) -> Path:
    """A line on stderr if that is where an earlier release kept its data; returns it."""
    note = note_on(used, the_settings().app_id)
    if note is not None:
        sys.stderr.write(f"{NAME}: {note}\n")
    return used


def datadir_of(ctx: click.Context, default: Path) -> Path:
    """The data folder: as given on the command line, else the app's."""
    given = ctx.find_root().params.get("datadir")
    if given in (None, FAUST_DEFAULT):
        return default
    return Path(str(given).replace("{conf.name}", the_settings().app_id))


def _some_text(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    """What is kept for ever says something, in the length that a command takes."""
    if not 0 < len(text.strip()) <= MAX_TEXT:
        raise click.BadParameter(f"a text of 1 to {MAX_TEXT} characters is needed")
    return text


def _me() -> str:
    """The login; behind sudo that of the person. Nobody is kept for ever as "unknown"."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # in a container that has no entry for its user
        raise click.UsageError("who orders this? This user has no login name: give --actor NAME") from None


ACTOR: Callable[..., Any] = click.option(
    "--actor", default=_me, callback=_some_text, help="Who does it; kept for ever. Default: the login."
)
REASON: Callable[..., Any] = click.option(
    "--reason", required=True, callback=_some_text, help="Why; kept for ever."
)


def waiting(for_what: str) -> Callable[..., Any]:
    """The option --wait."""
    return click.option(
        "--wait", "wait_s", default=30.0, show_default=True, type=click.FloatRange(min=0),
        help=f"Seconds to wait for {for_what}.",
    )  # fmt: skip
