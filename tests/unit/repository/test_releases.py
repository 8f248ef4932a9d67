"""The list of releases, the version, the changelog agree."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.releases import environment_of, git, releases, source_of

from processes import ROOT
from streamsocial_billing import __version__

SECTION = re.compile(r"^## \[(.+?)\]", re.M)


def test_the_changelog_has_a_section_for_each_release() -> None:
    """What is not released yet comes first, then the releases, the newest first."""
    sections = SECTION.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert ["Unreleased", *(tag.removeprefix("v") for tag in reversed(releases()))] == sections


def test_the_version_is_after_the_last_release() -> None:
    """A build between two releases is not taken for one of them."""
    *_, last = releases()
    now = [int(part) for part in __version__.removesuffix(".dev0").split(".")]
    assert now > [int(part) for part in last.removeprefix("v").split(".")]


@pytest.mark.parametrize("tag", releases())
def test_a_tag_names_the_commit_of_the_list(tag: str) -> None:
    """A release is what it was: a tag that was moved is seen."""
    found = git("rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}")
    if found.returncode:
        pytest.skip(f"no tag {tag} in this clone")
    assert releases()[tag].commit == found.stdout.decode().strip()


@pytest.mark.parametrize("tag", releases())
def test_a_release_finds_its_own_transport_and_store(tag: str, tmp_path: Path) -> None:
    """By their URL, as Faust looks for them: not those of the checkout, which are installed."""
    tree = source_of(releases()[tag], tmp_path)
    code = (
        "from faust.stores import by_url\n"
        "from faust.transport.drivers import TRANSPORTS\n"
        "for one in (TRANSPORTS.by_url('exactly-once://h'), by_url('exactly-once://')):\n"
        "    print(__import__('sys').modules[one.__module__].__file__)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-P", "-c", code], env=environment_of(tree, dict(os.environ)),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    layers = ("streamsocial_billing/exactly_once", "packages/faust-exactly-once/src/faust_exactly_once")
    (layer,) = [tree / folder for folder in layers if (tree / folder / "store.py").exists()]
    assert [str(layer / f"{name}.py") for name in ("transport", "store")] == done.stdout.split()
