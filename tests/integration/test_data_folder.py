"""Data goes under `data/`, where it is ignored and cleaned; what an earlier release left is used on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)
"""Begun early: it starts processes, and waits for a broker that is not there."""
FOLDERS = {"new": "data", "old": "streamsocial-billing-data"}
WHERE = "from streamsocial_billing.cli.main import the_app as a; a().finalize(); print(a().conf.datadir)"


def datadir(cwd: Path, *arguments: str, **environment: str) -> str:
    """The data folder of an app that starts in `cwd` with these arguments."""
    inherited = {name: text for name, text in os.environ.items() if "DATADIR" not in name}
    done = subprocess.run(
        [sys.executable, "-c", WHERE, *arguments], cwd=cwd, env=inherited | environment, capture_output=True,
        text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_default_lies_under_data(tmp_path: Path) -> None:
    """For each app id a folder of its own."""
    assert "data/streamsocial-billing" == datadir(tmp_path)
    assert "data/other" == datadir(tmp_path, BILLING_APP_ID="other")


def test_a_folder_of_an_earlier_release_is_used_on(tmp_path: Path) -> None:
    """The intake's id is in it. Once it was moved, the new place counts."""
    old = tmp_path / "streamsocial-billing-data"
    old.mkdir()
    assert "streamsocial-billing-data" == datadir(tmp_path)
    (tmp_path / "data").mkdir()
    assert "streamsocial-billing-data" == datadir(tmp_path)
    old.rename(tmp_path / "data" / "streamsocial-billing")
    assert "data/streamsocial-billing" == datadir(tmp_path)
    old.mkdir()
    assert "data/streamsocial-billing" == datadir(tmp_path)


@pytest.mark.parametrize("way", [("--datadir", "w1"), ("--datadir=w1",)])
def test_who_names_a_folder_gets_it(way: tuple[str, ...], tmp_path: Path) -> None:
    """On the command line, however it is written."""
    (tmp_path / "streamsocial-billing-data").mkdir()
    assert "w1" == datadir(tmp_path, *way)


def test_who_names_a_folder_in_the_environment_gets_it(tmp_path: Path) -> None:
    """As Faust calls the variable."""
    (tmp_path / "streamsocial-billing-data").mkdir()
    assert "w2" == datadir(tmp_path, FAUST_DATADIR="w2")


def test_submit_says_that_it_uses_the_old_place(tmp_path: Path) -> None:
    """One line that names both; without a broker it ends there."""
    program = Path(sys.executable).with_name("streamsocial-billing")
    environment = os.environ | {
        "BILLING_BROKER": "kafka://127.0.0.1:1", "BILLING_GATEWAY_URL": "http://127.0.0.1:1",
    }  # fmt: skip
    running = {}
    for name, folder in FOLDERS.items():  # both at once: each waits for its broker
        cwd = tmp_path / name
        cwd.mkdir()
        if name == "old":
            (cwd / folder).mkdir()
        running[name] = subprocess.Popen(
            [str(program), "submit"], cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    lines = {name: one.communicate(timeout=150)[1].splitlines() for name, one in running.items()}
    for name, folder in FOLDERS.items():
        assert [folder] == [one.name for one in (tmp_path / name).iterdir()]
    note = (
        "streamsocial-billing: streamsocial-billing-data, of an earlier release, is still used: "
        "move it to data/streamsocial-billing while nothing runs on it"
    )
    # librdkafka's own reason, in brackets, depends on how far each of the two had come
    reason = re.compile(r"(?<=does not answer )\(.*?\)(?=: )")
    old, new = ([reason.sub("(...)", one) for one in lines[name]] for name in ("old", "new"))
    assert [note, *new] == old
