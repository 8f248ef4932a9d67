"""Releases that were made: their source, taken from git, with workers that run from it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from support.simulator import ROOT

LIST = ROOT / "tests/upgrade/releases.toml"


@dataclass(frozen=True, slots=True)
class Release:
    """One that was made: its git tag, the commit that it stands for."""

    tag: str
    commit: str

    def __str__(self) -> str:
        return self.tag


@cache
def releases() -> dict[str, Release]:
    """Every release of the list by its tag, oldest first."""
    read = tomllib.loads(LIST.read_text(encoding="utf-8"))["release"]
    return {one["tag"]: Release(**one) for one in read}


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """What git says about this checkout."""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)  # noqa: S603, S607


def source_of(release: Release, folder: Path) -> Path:
    """The release's source, unpacked below `folder`; skips the test where this clone does not have it.

    In a clone under CI that is a failure: a job that never ran the upgrade must not pass for one that did.
    """
    packed = git("archive", release.commit, "streamsocial_billing", "tables")
    if packed.returncode:
        why = f"{release} ({release.commit[:7]}) is not in this clone: git fetch --tags --unshallow"
        must = bool(os.environ.get("CI")) and (ROOT / ".git").exists()
        (pytest.fail if must else pytest.skip)(why)
    tree = folder / release.tag
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(tree, filter="data")
    return tree


def environment_of(tree: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment in which Python finds the product in `tree`; raises AssertionError if it does not."""
    chosen = environment | {"PYTHONPATH": str(tree)}
    where = "import streamsocial_billing, tables; print(streamsocial_billing.__file__)"
    said = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-P", "-c", where],
        capture_output=True, text=True, env=chosen, check=True,
    ).stdout.strip()  # fmt: skip
    assert str(tree / "streamsocial_billing/__init__.py") == said
    return chosen
