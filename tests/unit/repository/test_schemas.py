"""The JSON Schemas under docs/schemas."""

import json
import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
MAKING = runpy.run_path(str(ROOT / "docs/schemas.py"))
MADE: dict[str, bytes] = MAKING["schemas"]()


def test_the_schemas_are_those_of_the_code() -> None:
    """`make schemas` was run after the last change of a record or row."""
    assert {path.name: path.read_bytes() for path in (ROOT / "docs/schemas").glob("*.json")} == MADE


def test_a_new_payment_is_described_as_the_event_that_it_becomes() -> None:
    """`make schemas` writes that part of docs/openapi.yaml, too."""
    assert (ROOT / "docs/openapi.yaml").read_text(encoding="utf-8") == MAKING["openapi"]()


def test_every_field_that_earlier_releases_wrote_is_described() -> None:
    """And none that a schema calls needed is missing in what they wrote."""
    for path in sorted((ROOT / "tests/golden").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            example = json.loads(line)
            if example["of"] not in ("payments-dlq", "table task_counters"):
                value = json.loads(example["value"])
                described = json.loads(MADE[_file(example["of"], value)])
                assert value.keys() <= described["properties"].keys(), example
                assert set(described.get("required", ())) <= value.keys(), example


def _file(of: str, value: dict[str, Any]) -> str:
    kind, _, name = of.rpartition(" ")
    more = ""
    if of == "table payments":
        more = ".archived" if "small" in value else ".reported" if "seen" in value else ""
    elif of == "reconciliation-breaks":
        more = "" if "id" in value else ".run"
    return f"{kind or 'topic'}.{name}{more}.json"
