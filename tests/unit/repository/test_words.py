"""What people read is in words of the field: no private language, no names of Python's or a parser's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("streamsocial_billing", "tables", "broker", "packages/faust-exactly-once/src")
DOCS = ("README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
BANNED = {
    r"\bdoubles?\b": "say what was done twice: charged twice, answered twice",
    r"\ball holds\b": "no difference found",
    r"\bh[eo]lds? up\b": "keeps waiting, delays",
    r"\bwaiting units\b": "events that wait for their commit",
    r"\bis ordered\b": "say what became of the order",
    r"\b(?:hold|holds|held) our books against\b": "compare with",
    r"\btimes more\b": "say how often, and why that is right",
    r"\b1 open breaks\b|\{\} open breaks\b": "1 open break",
    r"\bincarnations?\b": "the task starts again",
    r"\bwithout a word\b": "without notice",
    r"\bkeeper\b": "say what failed",
    r"\} is none of \{|\btold of\b|\btells of\b": "must be one of; reported",
    r"\b(?:Key|Value|Type|Attribute|Index|Unicode\w+|JSONDecode)Error\b": "what is wrong with the input",
    r"\bNoneType\b|<class |\bobject at 0x": "what is wrong with the input",
    r"\(char \d|\bline \d+ column\b|x>=|<=x": "what is allowed",
}
# what may not change: names that programs read
WIRE = (
    "exactly_once_incarnations_",
    "incarnations_opened", "incarnations_failed", "incarnations_", "waiting_units",
    "double result", "double dead letter", "`double`",
)  # fmt: skip
# for people who read how the layer works, or how it is tortured: there the words are explained
FOR_DEVELOPERS = {
    "docs/exactly-once.md", "docs/glossary.md", "docs/layer.md", "docs/defects.md", "docs/torture.md",
    "docs/decisions",
}  # fmt: skip
NAMES_OF_ERRORS = frozenset({"exc", "error", "err", "last", "again", "failure", "task", "problem"})


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text of a module with its line, f-strings with {} where something is put in; no docstrings."""
    silent = {id(node) for node in _docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in ast.walk(node)}
            parts = (str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values)
            yield node.lineno, "".join(parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.lineno, node.value


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Docstrings, those of attributes too; not those of commands, which are help texts."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for number, one in enumerate(body if isinstance(body, list) else []):
            text = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
            if text and not (number == 0 and _is_command(node)):
                yield one.value


def _is_command(node: ast.AST) -> bool:
    marks = getattr(node, "decorator_list", [])
    return any("command(" in ast.unparse(mark) or "group(" in ast.unparse(mark) for mark in marks)


@cache
def _texts() -> list[tuple[str, int, str]]:
    """Everything that people read: file, line, text."""
    return list(_read())


def _read() -> Iterator[tuple[str, int, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name == "wrong_values.py":  # knows click's words, to replace them
                continue
            for line, text in _strings(ast.parse(path.read_text(encoding="utf-8"))):
                yield str(path.relative_to(ROOT)), line, text
    pages = sorted((ROOT / "streamsocial_billing/web/static").glob("*.*"))
    for path in [*pages, *(ROOT / name for name in DOCS)]:
        if path.suffix in (".html", ".js", ".md") and str(path.relative_to(ROOT)) not in FOR_DEVELOPERS:
            for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield str(path.relative_to(ROOT)), number, text


def _without_wire_names(text: str) -> str:
    if text == "double":  # a field of /audit
        return ""
    for name in WIRE:
        text = text.replace(name, "")
    return text


@pytest.mark.parametrize("banned", BANNED)
def test_no_private_language_in_what_people_read(banned: str) -> None:
    """Command line, errors, log lines, pages, docs; the message says what to write instead."""
    pattern = re.compile(banned)
    found = [
        f"{file}:{line}: {text.strip()[:120]}" for file, line, text in _texts()
        if pattern.search(_without_wire_names(text))
    ]  # fmt: skip
    assert [] == found, f"write instead: {BANNED[banned]}"


def test_no_text_shows_an_error_as_python_writes_it() -> None:
    """`{error!r}` gives people ValueError('...'): its name and text, or what is wrong, is for them."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                shown = isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
                if shown and ast.unparse(node.value).split(".")[-1] in NAMES_OF_ERRORS:  # type: ignore[attr-defined]
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert [] == found


def test_a_banned_word_is_found_where_it_stands() -> None:
    """In an f-string, in a help text; not in a docstring."""
    tree = ast.parse(
        '"""0 double"""\n'
        "@cli.command()\ndef a():\n    \"\"\"holds our books against\"\"\"\n"
        'def b(n):\n    """all holds"""\n    return f"{n} open breaks"\n'
    )
    assert [(7, "{} open breaks"), (4, "holds our books against")] == list(_strings(tree))
