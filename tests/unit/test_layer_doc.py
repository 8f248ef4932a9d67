"""The layer stands by itself, and its page says what it is."""

import ast
import re
from pathlib import Path
from typing import Any

import faust
import pytest

import faust_exactly_once as exactly_once

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "streamsocial_billing" / "exactly_once"
PAGE = (ROOT / "docs" / "layer.md").read_text()


@pytest.mark.parametrize("path", sorted(LAYER.glob("*.py")), ids=lambda path: path.name)
def test_the_layer_imports_nothing_of_the_app_around_it(path: Path) -> None:
    """Another Faust user can take the folder as it is."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level < 2, ast.unparse(node)
            names = [node.module or ""] if node.level == 0 else []
        assert not [n for n in names if n.split(".")[0] in ("streamsocial_billing", "tables")]


def test_the_page_lists_every_public_name() -> None:
    """No more, no less than what the package exports."""
    table = PAGE.split("## Public names")[1].split("## Refused")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(exactly_once.__all__) == sorted(re.findall(r"`(\w+)`", " ".join(rows)))


def test_the_app_on_the_page_is_one_that_starts() -> None:
    """Its declarations pass every check that needs no broker."""
    code = PAGE.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"__name__": "layer_page"}
    exec(compile(code, "layer.md", "exec"), names)  # noqa: S102 - our own page
    app: faust.App = names["app"]
    exactly_once.start._refuse_what_breaks_the_contract(app)  # noqa: SLF001
    assert {"said", "forget"} == {topic for agent in app.agents.values() for topic in agent.channel.topics}
