"""The pages on HTTP and gateways know every code, outcome, type, fault."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Final

from processes import ROOT
from streamsocial_billing.gateways.simulator.faults import FaultSettings
from streamsocial_billing.gateways.stripe import webhook as stripe
from streamsocial_billing.intake.http import REFUSALS
from streamsocial_billing.intake.webhooks.receiver import OUTCOMES
from streamsocial_billing.web.payments_in import UNCHECKED

CODE_AT: Final = {"refusal": 1, "later": 0, "BadInput": 0, "word_in": 3, "id_in": 2}
"""Which argument is the code."""
ON_TOPICS_ONLY: Final = {"empty", "unknown_kind"}
HTTP, GATEWAYS, OPERATIONS = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("http.md", "gateways.md", "operations.md")
)


def test_every_refusal_stands_with_its_status() -> None:
    """A row of the table for each."""
    for reason, status in REFUSALS.items():
        assert f"| {status} `{reason}` |" in HTTP


def codes_of(path: Path) -> set[str]:
    """The codes that a file refuses with, as they stand in its calls."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if isinstance(node, ast.Call) and called in CODE_AT and len(node.args) > CODE_AT[called]:
            code = node.args[CODE_AT[called]]
            found |= {str(code.value)} if isinstance(code, ast.Constant) else set()
    return found


def test_every_code_of_a_refusal_is_explained() -> None:
    """Whatever refuses over HTTP: pages, webhooks, the rules for bad input."""
    app = ROOT / "streamsocial_billing"
    files = [app / "domain/events.py", app / "domain/foreign_fields.py", app / "gateways/routing.py"]
    files += [*(app / "intake").rglob("*.py"), *(app / "web").rglob("*.py")]
    codes = set().union(*map(codes_of, files)) - ON_TOPICS_ONLY
    assert {"bad_id", "too_large", "not_found", "busy", "unknown_product"} < codes
    assert [] == sorted(code for code in codes if f"`{code}`" not in HTTP)


def test_every_reason_not_to_ask_an_owner_is_explained() -> None:
    """Where the metric is."""
    row = next(line for line in OPERATIONS.splitlines() if "`billing_payments_unchecked_total`" in line)
    assert [] == [why for why in UNCHECKED if f"`{why}`" not in row]


def test_every_outcome_of_a_webhook_is_explained() -> None:
    """Where the metric is."""
    row = next(line for line in OPERATIONS.splitlines() if "`billing_webhooks_total`" in line)
    assert set() == {outcome for outcome in OUTCOMES if f"`{outcome}`" not in row}


def test_every_type_to_subscribe_to_is_mapped() -> None:
    """Nobody subscribes to what is passed over."""
    row = next(line for line in GATEWAYS.splitlines() if line.startswith("| subscribe to |"))
    words = row.split("|")[2].replace("`", "").replace(",", " ").split()
    told, before = set(), ""
    for word in words:
        before = before if word.startswith(".") else word.rpartition(".")[0]
        told.add(before + word if word.startswith(".") else word)
    aliases = {"charge.refunded", "charge.refund.updated"}
    assert set(stripe.TYPES) - aliases == told


def test_every_fault_of_the_simulator_is_explained() -> None:
    """Each name that `POST /_faults` takes."""
    page = GATEWAYS.split("## The simulator\n")[1].split("\n## ")[0]
    assert [] == [one.name for one in fields(FaultSettings) if f"`{one.name}`" not in page]
