"""Makes a site of the repository's documents: the README is its first page, links fit the site.

Links that lead out of docs/ name files of the repository: they become code, if the file exists. One that
leads nowhere is an error, as mkdocs makes it of every other broken link with --strict.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```console \w+$", re.MULTILINE)
"""`console runnable` and the like say to the tests what to do with a block; a highlighter stumbles."""
NOT_PAGES = {DOCS / "openapi.yaml", DOCS / "alerts.yml"}
DECISIONS = DOCS / "decisions"


def on_files(files: Files, config: Any) -> Files:
    """The README is index.md; the decisions get a page that lists them."""
    files.append(File.generated(config, "index.md", content=_from_root((ROOT / "README.md").read_text())))
    titles = [
        f"- [{path.read_text().splitlines()[0].lstrip('# ')}]({path.name})"
        for path in sorted(DECISIONS.glob("*.md"))
    ]
    text = "\n".join(["# Decisions", "", "Why it is as it is.", "", *titles])
    files.append(File.generated(config, "decisions/index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links out of docs/ become the path that they name."""
    folder = (DOCS / page.file.src_uri).parent
    markdown = FENCE.sub("```console", markdown)
    return LINK.sub(lambda link: _in_site(link, folder), markdown)


def _in_site(link: re.Match[str], folder: Path) -> str:
    picture, text, target = link.groups()
    if picture or target.startswith("#") or "://" in target:
        return link[0]
    path, _, anchor = target.partition("#")
    found = (folder / path).resolve()
    if found.is_relative_to(DOCS) and found not in NOT_PAGES:
        if found == DECISIONS:
            return f"[{text}]({path.rstrip('/')}/index.md)"
        return link[0]
    if not found.exists():
        return link[0]  # mkdocs says that it is broken
    if found == ROOT / "README.md":
        up = "../" * len(folder.relative_to(DOCS).parts)
        return f"[{text}]({up}index.md{'#' + anchor if anchor else ''})"
    name = text.strip("`")
    return f"`{name}`" if name in str(found) else f"{text} (`{found.relative_to(ROOT)}`)"


def _from_root(readme: str) -> str:
    """The README as if it lay in docs/."""

    def moved(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if target.startswith("docs/"):
            return f"{picture}[{text}]({target.removeprefix('docs/')})"
        if target.startswith("#") or "://" in target:
            return link[0]
        return f"{picture}[{text}](../{target})"

    return LINK.sub(moved, readme)
