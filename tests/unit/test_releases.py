"""The list of releases, the version, the changelog agree."""

import re

import pytest
from support.releases import git, releases
from support.simulator import ROOT

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
