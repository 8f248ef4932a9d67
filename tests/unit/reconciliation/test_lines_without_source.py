"""Stripe's exports that name the charge of a refund or dispute, but not the refund or dispute itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.small_books import OLD, filled, found_in, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.reconciliation.bridge import bridges
from streamsocial_billing.reconciliation.settlement.importing import load

KEY = gateway_key_of("ann", "charge", "p0")
HEADER = ("balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,charge_id,"
          "payment_metadata[ref]\n")  # fmt: skip
PAID: dict[str, Any] = {"amount_minor": 2500, "gateway": "stripe", "gateway_ref": "ch_1"}


def line(number: int, category: str, gross: str, charge: str = "ch_1", ref: str = KEY) -> str:
    """A line of the export."""
    return f"txn_{number},2026-02-14 10:00:00,eur,{gross},0.00,{gross},{category},{charge},{ref}\n"


def breaks(folder: Path, refunds: list[tuple[str, int]], *lines: str) -> list[tuple[str, str | None]]:
    """Class and reference of each; `refunds`: status and amount of what was refunded in the dashboard."""
    rows = [Movement("ch_1", "charge", "succeeded", 2500, "EUR", OLD, KEY, "p0", "ann")]
    results = [result("p0", **PAID)]
    for at, (status, amount) in enumerate(refunds):
        rows.append(Movement(f"re_{at}", "refund", status, amount, "EUR", OLD + at, charge_ref="ch_1"))
        told: dict[str, Any] = {"origin": "external", "gateway": "stripe", "gateway_ref": f"re_{at}",
                                "amount_minor": amount, "refund_of": "p0"}  # fmt: skip
        results.append(result(f"x1_{at}", action="refund", **told))
        if status == "failed":
            results.append(result(f"x1_f{at}", action="charge", reason="refund_failed", **told))
    db = filled(results, rows, gateway="stripe")
    path = folder / "export.csv"
    path.write_text(HEADER + line(0, "charge", "25.00") + "".join(lines))
    load(db, path)
    found = [(one["class"], one["gateway_ref"]) for one in found_in(db)]
    assert [] == [problem for one in bridges(db) for problem in one.problems()]
    return found


@pytest.mark.parametrize(
    ("refunds", "lines"),
    [([("succeeded", 500)], [("refund", "-5.00")]),
     ([("succeeded", 500), ("succeeded", 500)], [("refund", "-5.00"), ("refund", "-5.00")]),
     ([("succeeded", 500), ("succeeded", 700)], [("refund", "-7.00"), ("refund", "-5.00")]),
     ([("succeeded", 500), ("failed", 500)],
      [("refund", "-5.00"), ("refund", "-5.00"), ("refund_failure", "5.00")]),
     ([("failed", 500)], [("refund_failure", "5.00"), ("refund", "-5.00")])],
)  # fmt: skip
def test_a_refund_is_found_by_its_charge_and_amount(
    refunds: list[tuple[str, int]], lines: list[tuple[str, str]], tmp_path: Path
) -> None:
    """It is no part of the charge's own amount; several of one amount are one each."""
    assert [] == breaks(tmp_path, refunds, *(line(at, *one) for at, one in enumerate(lines, 1)))


def test_what_fits_nothing_is_said(tmp_path: Path) -> None:
    """Another amount, one too many; what is of others is not."""
    assert [("orphan_line", None)] == breaks(tmp_path, [("succeeded", 500)], line(1, "refund", "-5.00"),
                                             line(2, "refund", "-5.00"))  # fmt: skip
    assert [("orphan_line", None)] == breaks(tmp_path, [("succeeded", 500)], line(1, "refund", "-4.99"))
    assert [("dispute_unbooked", None)] == breaks(tmp_path, [], line(1, "dispute", "-5.00"))
    assert [] == breaks(tmp_path, [], line(1, "refund", "-5.00", "ch_other", ""))
