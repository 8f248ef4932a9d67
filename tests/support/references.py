"""What comments, docstrings and documents name: files, headings, tests, decisions, points, names of code."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
CHECK: Final = "test_references.py"
"""The check itself names what is not there."""
PATH = re.compile(
    r"(?<![\w/.{}:-])(?P<path>(?:\.\./)*[\w-][\w./-]*\.(?:md|py|toml|ya?ml|cfg))"
    r"(?:#(?P<anchor>[\w-]+)|::(?P<test>\w+)|, \"(?P<title>[^\"]+)\")?(?![\w*])"
)
DECISION = re.compile(r"\b[Dd]ecision(?: number)? \[?(?P<number>\d{1,4})\b")
POINT = re.compile(r"\bpoints? (?P<number>\d+)(?P<part>[a-e])?\b")
NAME = re.compile(r"`(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\([^`]*\))?`")
WORDS = re.compile(r"\w+")


class Line(NamedTuple):
    """A line that people read: of a comment, a docstring, a document."""

    file: Path
    """From the root."""
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.text.strip()}"


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository, from its root; also what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    listed_once = (Path(name) for name in sorted(set(listed.splitlines())))
    return tuple(path for path in listed_once if (ROOT / path).is_file() and path.name != CHECK)


@cache
def text_of(file: Path) -> str:
    """A file's text."""
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def ends() -> dict[str, tuple[Path, ...]]:
    """The files by each end of their path: `broker/jars.py`, `jars.py`."""
    found: dict[str, tuple[Path, ...]] = {}
    for file in files():
        for first in range(len(file.parts)):
            end = "/".join(file.parts[first:])
            found[end] = (*found.get(end, ()), file)
    return found


def named(path: str) -> tuple[Path, ...]:
    """The files that a path may mean, however it begins."""
    return ends().get(path.replace("../", "").removeprefix("./"), ())


@cache
def lines() -> tuple[Line, ...]:
    """What people read in code and documents, outside blocks of code."""
    return tuple(_lines())


def _lines() -> Iterator[Line]:
    for file in files():
        if file.suffix == ".py":
            yield from _of_code(file)
        elif file.suffix == ".md":
            yield from _of_document(file)
        elif file.suffix in (".yml", ".yaml", ".cfg", ".toml") or file.name in ("Makefile", "Dockerfile"):
            yield from (Line(file, number, text) for number, text in enumerate(text_of(file).splitlines(), 1))


def _of_code(file: Path) -> Iterator[Line]:
    for token in tokenize.generate_tokens(io.StringIO(text_of(file)).readline):
        if token.type == tokenize.COMMENT:
            yield Line(file, token.start[0], token.string)
    for node in ast.walk(ast.parse(text_of(file))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                for number, text in enumerate(node.value.value.splitlines(), node.lineno):
                    yield Line(file, number, text)


def _of_document(file: Path) -> Iterator[Line]:
    in_code = False
    for number, text in enumerate(text_of(file).splitlines(), 1):
        if text.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield Line(file, number, text)


@cache
def titles(document: Path) -> set[str]:
    """Headings of a document, and what stands in bold at the beginning of a paragraph or an item."""
    text = text_of(document)
    return {
        title.strip(" .:")
        for title in re.findall(r"^#+ (.+)$|^(?:[-*] |\d+\. )?\*\*([^*]+)\*\*", text, re.MULTILINE)
        for title in title
        if title
    }


@cache
def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as the site and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def words_of_code() -> frozenset[str]:
    """Every name and every word in a text of the code, also of files that are no code; no comments."""
    found: set[str] = set()
    for file in files():
        found |= set(WORDS.findall(str(file)))
        if file.suffix == ".py":
            found |= _words(ast.parse(text_of(file)))
        elif file.suffix not in (".md", ".png", ".jar", ".ico", ".woff2"):
            found |= set(WORDS.findall((ROOT / file).read_text(encoding="utf-8", errors="replace")))
    return frozenset(found)


def _words(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found |= set(WORDS.findall(value))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            found |= set(WORDS.findall(node.value))
    return found
