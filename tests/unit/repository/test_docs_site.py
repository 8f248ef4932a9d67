"""The documents make a site, without a broken link, that needs nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    """Also the README, as the first page, and the decisions with their list."""
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages | {Path("index.html"), Path("decisions/index.html")} <= {
        path.relative_to(site) for path in site.rglob("*.html")
    }


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """Neither fonts nor scripts nor pictures: it is read offline."""
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="([^"]+)"',
            page.read_text(encoding="utf-8"),
        )  # fmt: skip
        assert [] == [one for pair in loaded for one in pair if "//" in one], page.name


def test_blocks_with_a_word_for_the_tests_are_blocks_on_the_site(site: Path) -> None:
    """`console runnable` is a code block there, and the headings after it are headings."""
    first = (site / "index.html").read_text(encoding="utf-8")
    assert "```" not in first
    assert 'id="how-it-works"' in first
