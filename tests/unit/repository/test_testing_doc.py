"""docs/testing.md says of each test that only `make test-all` runs why that is so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "testing.md").read_text()
FOLDERS = (ROOT / "tests", ROOT / "packages/faust-exactly-once/tests")
TESTS = sorted(path for folder in FOLDERS for path in folder.rglob("test_*.py"))


def slow(node: ast.AST) -> bool:
    """True if `pytest.mark.slow` stands in it."""
    return any(isinstance(part, ast.Attribute) and part.attr == "slow" for part in ast.walk(node))


def slow_tests() -> Iterator[tuple[str, str]]:
    """Path below tests/, name of each function that is marked, in whole or for some parameters."""
    for path in TESTS:
        tree = ast.parse(path.read_text())
        marks = [node for node in tree.body if isinstance(node, ast.Assign) and slow(node)]
        names = {target.id for node in marks for target in node.targets if isinstance(target, ast.Name)}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                parts = [part for one in node.decorator_list for part in ast.walk(one)]
                used = {part.id for part in parts if isinstance(part, ast.Name)}
                if "pytestmark" in names or used & names or any(map(slow, node.decorator_list)):
                    yield path.relative_to(ROOT).as_posix().removeprefix("tests/"), node.name


def test_each_test_that_a_ci_run_leaves_out_is_listed_with_its_reason() -> None:
    """By its name, or by its file."""
    found = list(slow_tests())
    assert len(found) > 20
    listed = PAGE.split("## What only", 1)[1]
    assert [] == [one for one in found if f"`{one[0]}`" not in listed and f"`{one[1]}`" not in listed]


def test_no_test_is_listed_that_is_not_there() -> None:
    """Each name of a test that the page says is defined somewhere."""
    text = "".join(path.read_text() for path in TESTS)
    names = {word for word in PAGE.split("`") if word.startswith("test_") and not word.endswith(".py")}
    assert [] == [name for name in sorted(names) if f"def {name}(" not in text]
    files = {word.rpartition("/")[2] for word in PAGE.split("`") if word.endswith(".py") and " " not in word}
    there = {path.name for folder in FOLDERS for path in folder.rglob("*.py")}
    assert [] == sorted(files - there)
