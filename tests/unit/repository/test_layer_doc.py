"""The layer stands by itself, the product goes by what it offers, and its pages say what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest

import faust_exactly_once
from faust_exactly_once import declarations

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "packages/faust-exactly-once"
LAYER = PACKAGE / "src/faust_exactly_once"
PAGE = (PACKAGE / "README.md").read_text(encoding="utf-8")
USERS = ("streamsocial_billing", "tables", "lab", "benchmarks", "showcase", "examples")
OF_THE_PRODUCT = re.compile(r"streamsocial|billing|payment|stripe|paypal|\bcharge", re.IGNORECASE)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, by its full name; of `from x import y` both `x` and `x.y`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def test_no_text_of_the_layer_names_the_product() -> None:
    """Neither code nor pages: whoever installs it alone reads of units, events, handlers."""
    files = [path for kind in ("py", "md", "toml") for path in sorted(PACKAGE.rglob(f"*.{kind}"))]
    assert LAYER / "commit.py" in files
    assert [] == [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}" for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if OF_THE_PRODUCT.search(line)
    ]  # fmt: skip


def private_uses(source: str) -> list[str]:
    """What a program takes of the layer that is not public: a module below it, a name not in `__all__`."""
    tree = ast.parse(source)
    names = [name for name in imports(tree) if name.split(".")[0] == "faust_exactly_once"]
    called = {
        alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
        for alias in node.names if alias.name == "faust_exactly_once"
    }  # fmt: skip
    names += [
        f"faust_exactly_once.{node.attr}" for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in called
    ]  # fmt: skip
    public = {"faust_exactly_once", "faust_exactly_once.*", "faust_exactly_once.__all__"}
    return sorted(set(names) - public - {f"faust_exactly_once.{name}" for name in faust_exactly_once.__all__})


@pytest.mark.parametrize("user", [name for name in USERS if (ROOT / name).is_dir()])
def test_the_product_uses_only_what_is_public(user: str) -> None:
    """Then the layer's modules may change without the product."""
    assert {} == {
        str(path.relative_to(ROOT)): found for path in sorted((ROOT / user).rglob("*.py"))
        if (found := private_uses(path.read_text(encoding="utf-8")))
    }  # fmt: skip


def test_a_private_use_is_found_however_it_is_written() -> None:
    """A module's name, an attribute of the package, a name that is not in `__all__`."""
    assert ["faust_exactly_once.task.Task"] == private_uses("from faust_exactly_once.task import Task")
    assert ["faust_exactly_once.task"] == private_uses("from faust_exactly_once import task, Layer")
    assert ["faust_exactly_once.task"] == private_uses("import faust_exactly_once as e\ne.task.Task, e.Layer")


def test_every_public_name_is_there() -> None:
    """`from faust_exactly_once import *` works, and names nothing twice."""
    assert [] == [name for name in faust_exactly_once.__all__ if not hasattr(faust_exactly_once, name)]
    assert len(faust_exactly_once.__all__) == len(set(faust_exactly_once.__all__))


def test_the_page_lists_every_public_name() -> None:
    """No more, no less than what the package exports."""
    table = PAGE.split("## Public names")[1].split("## Refused")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(faust_exactly_once.__all__) == sorted(re.findall(r"`(\w+)`", " ".join(rows)))


def test_the_app_on_the_page_is_one_that_starts() -> None:
    """Its declarations pass every check that needs no broker."""
    code = PAGE.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"__name__": "layer_page"}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own page
    app: faust.App = names["app"]
    declarations.refuse_what_breaks_the_contract(app)
    assert {"said", "forget"} == {topic for agent in app.agents.values() for topic in agent.channel.topics}
