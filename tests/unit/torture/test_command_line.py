"""What `python -m torture` is told, and what it refuses before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torture.__main__ import SIZES
from torture.again import brokers_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (["--brokers=2"], {}, "BROKERS=2 is not offered: choose 1 or 3"),
        ([], {"BROKERS": "2"}, "BROKERS=2 is not offered: choose 1 or 3"),
        ([], {"BROKERS": "3", "KAFKA": "a:1"}, "BROKERS=3 starts brokers, KAFKA=a:1 names yours: choose one"),
        (["--brokers=3"], {"KAFKA": "a:1"}, "BROKERS=3 starts brokers, KAFKA=a:1 names yours: choose one"),
    ],
)
def test_other_numbers_of_brokers_are_refused(
    arguments: list[str], environment: dict[str, str], text: str, tmp_path: Path
) -> None:
    """One line, exit code 2, nothing started, no folder made."""
    bare = {name: value for name, value in os.environ.items() if name not in ("BROKERS", "KAFKA")}
    command = [sys.executable, "-m", "torture", f"--out={tmp_path / 'run'}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=bare | environment, capture_output=True, text=True, check=False
    )
    assert (2, f"python -m torture: error: {text}") == (done.returncode, done.stderr.splitlines()[-1])
    assert [] == list(tmp_path.iterdir())


def test_the_storm_of_three_brokers_is_as_long_as_that_of_one() -> None:
    """Of the long size; payments and faults may be fewer."""
    assert SIZES[1]["long"].length_s == SIZES[3]["long"].length_s
    assert SIZES[1].keys() == SIZES[3].keys()


def test_a_run_is_judged_with_the_brokers_that_it_had(tmp_path: Path) -> None:
    """From run.json; a run from before there were three had one."""
    assert 1 == brokers_of(tmp_path)
    (tmp_path / "run.json").write_text('{"seed": 1}')
    assert 1 == brokers_of(tmp_path)
    (tmp_path / "run.json").write_text('{"seed": 1, "brokers": 3}')
    assert 3 == brokers_of(tmp_path)
