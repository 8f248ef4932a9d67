"""The words of the product that others store, scrape, call or grep, as its code and its pages have them.

`python tests/support/public_words.py` prints them as JSON: the list of a release (CONTRIBUTING.md).
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import orjson
from faust.cli.faust import cli as faust_cli
from prometheus_client import CollectorRegistry

from faust_exactly_once.metrics import Snapshot
from streamsocial_billing.app import create_app
from streamsocial_billing.cli import commands as cli  # noqa: F401 - it adds our commands
from streamsocial_billing.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[2]
NO_PRODUCT: Final = {"tests", "docs", "torture", "lab", "benchmarks", "examples", "broker", "build", "data"}
PAGES: Final = (
    "README.md", "docs/payments.md", "docs/http.md", "docs/gateways.md", "docs/operations.md",
    "docs/reconciliation.md", "docs/subscriptions.md", "docs/openapi.yaml",
)  # fmt: skip
QUOTED: Final = re.compile(r"`([^`]+)`|^\s+(\w+): ", re.MULTILINE)
WORD: Final = re.compile(r"[A-Za-z][\w-]*")


@cache
def sources(root: Path = ROOT) -> tuple[ast.Module, ...]:
    """The modules of the product."""
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in _files(root))


def _files(root: Path) -> Iterator[Path]:
    for top in sorted(root.iterdir()):  # not below what is left out: an environment has ten thousand files
        if top.name not in NO_PRODUCT and not top.name.startswith("."):
            found = sorted(top.rglob("*.py")) if top.is_dir() else [top] if top.suffix == ".py" else []
            yield from (path for path in found if "tests" not in path.relative_to(root).parts)


@cache
def texts(root: Path = ROOT) -> frozenset[str]:
    """Every text of the product, parts of formatted ones too; no docstrings."""
    found: set[str] = set()
    for tree in sources(root):
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in said:
                value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
                found |= {value} if isinstance(value, str) else set()
    return frozenset(found)


@cache
def fields(root: Path = ROOT) -> frozenset[str]:
    """The annotated names of its classes: fields of records and rows, if they are such."""
    return frozenset(
        line.target.id
        for tree in sources(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    )


@cache
def spoken(root: Path = ROOT) -> frozenset[str]:
    """Every word in its texts, and its fields."""
    return frozenset(word for text in texts(root) for word in WORD.findall(text)) | fields(root)


@cache
def values(root: Path = ROOT) -> frozenset[str]:
    """Texts that are keys, members of a list, or compared with: statuses, reasons, fields are such."""
    found: set[str] = set()
    for tree in sources(root):
        for node in ast.walk(tree):
            parts: list[Any] = []
            if isinstance(node, ast.Dict):
                parts = node.keys
            elif isinstance(node, ast.Set | ast.Tuple | ast.List):
                parts = node.elts
            elif isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
            elif isinstance(node, ast.Subscript):
                parts = [node.slice]
            found |= {value for one in parts if isinstance(value := getattr(one, "value", None), str)}
    return frozenset(found)


def documented(root: Path = ROOT) -> frozenset[str]:
    """Statuses, reasons, fields, headers, keys: words in back quotes on the pages that the product speaks."""
    quoted = {
        word
        for page in PAGES
        for pair in QUOTED.findall((root / page).read_text(encoding="utf-8"))
        for text in pair
        for word in WORD.findall(text)
    }
    speaking = {text for text in texts(root) if re.search("[_-]", text)}
    return frozenset(quoted & (speaking | values(root) | fields(root)))


def rows(root: Path = ROOT) -> frozenset[str]:
    """The fields of the rows, table by table's file."""
    return frozenset(
        line.target.id
        for path in (root / "tables").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    )


def probes(root: Path = ROOT) -> frozenset[str]:
    """The names of the points at which a probe is called."""
    return frozenset(
        node.args[0].value
        for tree in sources(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].lstrip("_") == "probe"
        for _ in node.args[:1]
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    )


def schemes(root: Path = ROOT) -> frozenset[str]:
    """What is found by a name in the installed packages: commands, URL schemes, drivers."""
    read = configparser.ConfigParser()
    read.read(root / "setup.cfg", encoding="utf-8")
    product = (
        f"{group} {line.partition('=')[0].strip()}"
        for group, lines in read["options.entry_points"].items()
        for line in lines.splitlines()
        if line.strip()
    )
    pages = root.glob("packages/*/pyproject.toml")
    layers = (tomllib.loads(page.read_text(encoding="utf-8")) for page in pages)
    return frozenset(product).union(
        f"{group} {name}" for layer in layers for group, names in layer["project"]["entry-points"].items()
        for name in names
    )  # fmt: skip


def commands(command: click.Command = faust_cli, path: str = "") -> Iterator[str]:
    """Commands with their options and arguments, by what one types."""
    for one in command.params:
        for word in (*one.opts, *one.secondary_opts):
            yield f"{path} {word}".strip()
    yield from (path,) if path else ()
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}".strip())


def metrics(collector: Any) -> frozenset[str]:
    """What a collector has, with its labels: `name{label,label}`."""
    labels = tuple(getattr(collector, "_labelnames", ()))
    return frozenset(
        f"{one.name}{{{','.join(sorted(labels or getattr(one, '_labelnames', ())))}}}"
        for one in collector.collect()
    )


class Worker:
    """A worker's app as it is built, with what it serves; nothing is started."""

    def __init__(self) -> None:
        self._collectors: list[Any] = []
        register = CollectorRegistry.register

        def noted(registry: CollectorRegistry, collector: Any) -> None:
            self._collectors.append(collector)
            register(registry, collector)

        CollectorRegistry.register = noted  # type: ignore[method-assign, assignment]
        try:
            self.app: Any = create_app(Settings(), {})
        finally:
            CollectorRegistry.register = register  # type: ignore[method-assign]

    def routes(self) -> frozenset[str]:
        """Method and path of each page."""
        routes = self.app.web.web_app.router.routes()
        return frozenset(f"{one.method} {one.resource.canonical}" for one in routes)

    def metrics(self) -> frozenset[str]:
        """Of the layer and of the product."""
        from faust_exactly_once.layer import Layer

        layer = Layer.of(self.app)
        return metrics(Snapshot(layer.status(), layer.worker_status())).union(*map(metrics, self._collectors))

    def topics(self) -> frozenset[str]:
        """Those that it creates, with the changelogs of its tables."""
        from streamsocial_billing.kafka.topics import PLANS

        logs = {str(table.changelog_topic_name) for table in self.app.tables.values()}
        return frozenset(plan.name for plan in PLANS) | logs


TEXTS: Final = frozenset({
    "exactly-once", "exactly-once-tasks", "tasks", "-intake-", "-command-", "-changelog",
    "X-Exactly-Once-Hop", "Idempotency-Key", "Idempotent-Replayed", "CGMDv2:", "ss1_", "x1_",
})  # fmt: skip
"""Parts of protocols, ids and headers that stand in no table of a page."""


def public_words(root: Path = ROOT) -> dict[str, list[str]]:
    """All of them by kind, in order."""
    worker = Worker()
    found: dict[str, Iterable[str]] = {
        "topics": worker.topics(), "tables": worker.app.tables, "fields_of_rows": rows(root),
        "words_of_pages": documented(root), "probes": probes(root), "entry_points": schemes(root),
        "commands": commands(), "routes": worker.routes(), "metrics": worker.metrics(),
        "settings": (field.name for field in dataclasses.fields(Settings)),
        "texts": {one for one in TEXTS if any(one in text for text in texts(root))},
    }  # fmt: skip
    return {kind: sorted(set(words)) for kind, words in found.items()}


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT
    sys.stdout.buffer.write(orjson.dumps(public_words(root), option=orjson.OPT_INDENT_2) + b"\n")
