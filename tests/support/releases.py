"""Releases that were made: their source, taken from git, with workers that run from it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest

from processes import ROOT

LIST = ROOT / "tests/upgrade/releases.toml"
LAYER = "packages/faust-exactly-once"


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
    packed = git("archive", release.commit, *_kept(release))
    if packed.returncode:
        why = f"{release} ({release.commit[:7]}) is not in this clone: git fetch --tags --unshallow"
        must = bool(os.environ.get("CI")) and (ROOT / ".git").exists()
        (pytest.fail if must else pytest.skip)(why)
    tree = folder / release.tag
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(tree, filter="data")
    _say_its_own_entry_points(tree)
    return tree


def _kept(release: Release) -> list[str]:
    """What of a release's sources is needed to run it."""
    there = git("ls-tree", "--name-only", release.commit).stdout.decode().split()
    return [name for name in ("streamsocial_billing", "tables", "packages", "setup.cfg") if name in there]


def _say_its_own_entry_points(tree: Path) -> None:
    """Let Faust find the release's transport, store and web driver, as it does where that is installed.

    Python takes the first distribution of a name on its path; this checkout's, installed, come later. The
    release's layer was no distribution of its own up to v0.2.0: then one without entry points hides ours.
    """
    read = configparser.ConfigParser()
    read.read(tree / "setup.cfg", encoding="utf-8")
    _distribution(tree, "streamsocial-billing", dict(read["options.entry_points"]))
    layer = tree / LAYER / "pyproject.toml"
    groups = tomllib.loads(layer.read_text())["project"]["entry-points"] if layer.exists() else {}
    _distribution(tree, "faust-exactly-once", {
        group: "\n".join(f"{name} = {target}" for name, target in points.items())
        for group, points in groups.items()
    })  # fmt: skip


def _distribution(tree: Path, name: str, entry_points: Mapping[str, str]) -> None:
    folder = tree / f"{name.replace('-', '_')}-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    groups = [f"[{group}]\n{lines.strip()}\n" for group, lines in entry_points.items()]
    (folder / "entry_points.txt").write_text("\n".join(groups))


def environment_of(tree: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment in which Python finds the product in `tree`; raises AssertionError if it does not."""
    chosen = environment | {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / LAYER / "src")])}
    where = "import streamsocial_billing, tables; print(streamsocial_billing.__file__)"
    said = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-P", "-c", where],
        capture_output=True, text=True, env=chosen, check=True,
    ).stdout.strip()  # fmt: skip
    assert str(tree / "streamsocial_billing/__init__.py") == said
    return chosen
