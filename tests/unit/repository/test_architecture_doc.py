"""The page of the architecture shows the rooms as they are held, and walks through code that is there."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
DOCS: Final = ROOT / "docs"
PAGE: Final = (DOCS / "architecture.md").read_text(encoding="utf-8")
PRODUCT: Final = ROOT / "streamsocial_billing"
ONLY_PATHS: Final = {"__main__", "events", "topics", "exactly_once"}
"""Command of the package, paths that others import: no rooms."""
STEP: Final = re.compile(r"\[`([\w.]+)`\]\(([\w./-]+\.py)\)")
MOST_FILES: Final = 15


def rooms() -> list[str]:
    """From the top, as import-linter holds them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    layers = config["importlinter:contract:rooms"]["layers"].split()
    return [room for room in layers if room != "|" and room not in ONLY_PATHS]


def names_of(path: Path) -> set[str]:
    """Functions, methods with their classes."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        for part in getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{node.name}.{part.name}")  # type: ignore[attr-defined]
    return found


def test_the_picture_shows_the_rooms_in_the_order_that_lint_holds() -> None:
    """No room is left out, none is drawn where it does not stand."""
    picture = (DOCS / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    assert rooms() == re.findall(r'class="b room">(\w+)<', picture)


def test_the_list_of_the_rooms_names_each_of_them() -> None:
    """With what lives there."""
    table = PAGE.split("| room |")[1].split("\n\n")[0]
    assert rooms() == [name.removesuffix(".py").rstrip("/") for name in re.findall(r"`([\w./]+)`", table)
                       if name.removesuffix(".py").rstrip("/") in rooms()]  # fmt: skip


def test_the_way_of_a_payment_leads_through_functions_that_are_there() -> None:
    """The file, the class, the function."""
    steps = STEP.findall(PAGE)
    assert len(steps) > 10
    missing = [step for step in steps if step[0] not in names_of((DOCS / step[1]).resolve())]
    assert [] == missing


def test_the_way_of_a_payment_is_short() -> None:
    """So many files a newcomer opens, from the topic to RocksDB."""
    assert len({path for _, path in STEP.findall(PAGE)}) <= MOST_FILES


def test_few_modules_stand_beside_the_rooms() -> None:
    """A module that belongs to no room has to be worth it."""
    flat = {path.stem for path in PRODUCT.glob("*.py")} - {"__init__", "__main__"}
    assert len(flat) <= 8, sorted(flat)
