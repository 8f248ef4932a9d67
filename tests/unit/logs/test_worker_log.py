"""The log of a worker as it is chosen: by option, by setting, by Faust's own `logging_config`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click
import pytest
from faust.cli.faust import cli

from streamsocial_billing.cli import worker as cli_worker
from streamsocial_billing.cli import worker_process as worker
from streamsocial_billing.cli.worker_process import Worker
from streamsocial_billing.settings import Settings

SECRET = "t0ken-of-the-api"


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was chosen on the command line; the settings have a secret."""
    monkeypatch.setattr(Worker, "chosen_format", None)
    monkeypatch.setattr(Worker, "chosen_level", None)
    monkeypatch.setattr(worker, "the_settings", lambda: Settings(api_token=SECRET, log_format="json"))


def log_of(**choices: Any) -> None:
    """Set the log up as a worker with these choices of Faust does."""
    made = Worker.__new__(Worker)
    given = {
        "logging_config": None, "logfile": None, "loglevel": "WARN", "loghandlers": [], "_has_log": False,
        "redirect_stdouts": False, "spinner": None, "quiet": True,
    } | choices  # fmt: skip
    for name, value in given.items():
        setattr(made, name, value)
    made._setup_logging()  # noqa: SLF001 - mode's own hook
    logging.getLogger("streamsocial_billing.x").info("the token is %s", SECRET)
    for handler in logging.getLogger().handlers:
        handler.flush()


def test_the_setting_decides_where_no_option_does(root: logging.Logger, tmp_path: Path) -> None:
    """BILLING_LOG_FORMAT=json; into the file of --logfile."""
    pytest.importorskip("pythonjsonlogger", reason="constraints.txt has it: make install")
    log_of(logfile=str(tmp_path / "log"))
    assert "the token is ***" == json.loads((tmp_path / "log").read_text())["message"]


def test_the_option_goes_before_the_setting(
    root: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--log-format text."""
    monkeypatch.setattr(Worker, "chosen_format", "text")
    log_of(logfile=str(tmp_path / "log"))
    assert (tmp_path / "log").read_text().endswith("Z INFO x the token is ***\n")


def test_a_level_on_the_command_line_is_told_from_faust_s_default(
    root: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--loglevel warn takes our INFO lines away, though WARN is Faust's default, too."""
    monkeypatch.setattr(Worker, "chosen_level", "WARNING")
    log_of(logfile=str(tmp_path / "log"))
    assert "" == (tmp_path / "log").read_text()


def test_faust_s_logging_config_is_used_and_what_it_writes_is_masked(
    root: logging.Logger, tmp_path: Path
) -> None:
    """Its handlers, its format; what must not be read is masked all the same."""
    log_of(logging_config={
        "version": 1, "disable_existing_loggers": False,
        "formatters": {"mine": {"format": "mine: %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "log"),
                              "formatter": "mine"}},
        "root": {"level": "INFO", "handlers": ["file"]},
    })  # fmt: skip
    assert "mine: the token is ***\n" == (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "level", "form"),
    [((), None, None), (("--loglevel", "warn"), "WARNING", None), (("-l", "crit"), "CRITICAL", None),
     (("--log-format", "json"), None, "json")],
)  # fmt: skip
def test_the_command_line_is_understood(
    arguments: tuple[str, ...], level: str | None, form: str | None
) -> None:
    """The options of `worker`, with Faust's own names of levels."""
    command = cli.commands["worker"]
    assert cli_worker is not None
    with click.Context(cli) as parent:
        command.make_context("worker", list(arguments), parent=parent)
    assert (level, form) == (Worker.chosen_level, Worker.chosen_format)
