"""The pages on HTTP and gateways know every code, outcome, type, fault."""

from __future__ import annotations

from dataclasses import fields

from support.simulator import ROOT

from streamsocial_billing.gateways.simulator.faults import FaultSettings
from streamsocial_billing.intake.http import REFUSALS
from streamsocial_billing.views.payments_in import UNCHECKED
from streamsocial_billing.webhooks import stripe
from streamsocial_billing.webhooks.receiver import OUTCOMES

HTTP, GATEWAYS, OPERATIONS = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("http.md", "gateways.md", "operations.md")
)


def test_every_refusal_stands_with_its_status() -> None:
    """A row of the table for each."""
    for reason, status in REFUSALS.items():
        assert f"| {status} `{reason}` |" in HTTP


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
