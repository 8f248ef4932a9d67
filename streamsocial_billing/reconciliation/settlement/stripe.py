"""Reads Stripe's itemised reports: payout reconciliation, balance change from activity.

Columns as in docs.stripe.com/reports/report-types (`payout_reconciliation.itemized`,
`balance_change_from_activity.itemized`): amounts in major units, signed; currency in small letters. Stripe's
export has no trailer: that it is whole is only seen where it has rows of `reporting_category` payout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamsocial_billing.reconciliation.settlement.lines import (
    BadLine,
    Line,
    Rows,
    checked,
    columns,
    known_currency,
    millis,
    minor_units,
    refused,
)

NEEDED: Final = ("balance_transaction_id", "currency", "gross", "fee", "net", "reporting_category")
KIND_OF: Final = {
    "charge": "charge", "charge_failure": "charge", "refund": "refund", "refund_failure": "refund",
    "dispute": "dispute", "dispute_reversal": "dispute", "payout": "payout", "payout_reversal": "payout",
}  # fmt: skip
"""`reporting_category` to our kinds; every other one (fee, tax, network_cost, ...) is an adjustment."""


def recognises(header: list[str]) -> bool:
    """True for a file of this format."""
    return {"balance_transaction_id", "reporting_category"} <= {title.strip() for title in header}


def read(rows: Rows, name: str) -> Iterator[tuple[int, Line]]:
    """Every line with its number; raises InputRefused as soon as something cannot be right."""
    number, header = next(rows)
    at = columns(header, NEEDED, number, name)
    time = next((one for one in ("created_utc", "created") if one in at), None)
    source = next((one for one in ("source_id", "charge_id") if one in at), None)
    if time is None or source is None:
        raise refused(name, number, f"column {'created_utc' if time is None else 'source_id'} is missing")
    for number, cells in rows:
        try:
            if cells == header:
                raise BadLine("the header once more: is the file there twice?")
            if len(cells) != len(header):
                raise BadLine(f"{len(cells)} columns, not {len(header)}: is the file cut off?")
            yield number, _line(cells, at, time, source)
        except BadLine as bad:
            raise refused(name, number, bad) from None


def _line(cells: list[str], at: dict[str, int], time: str, source: str) -> Line:
    def cell(title: str) -> str | None:
        return cells[at[title]] or None if title in at else None

    kind = KIND_OF.get(cells[at["reporting_category"]], "adjustment")
    currency = known_currency(cells[at["currency"]])
    gross, fee, net = (minor_units(cells[at[one]], currency, one) for one in ("gross", "fee", "net"))
    name, about = cell("balance_transaction_id"), cell(source)
    if name is None:
        raise BadLine("balance_transaction_id is empty")
    payout = cell("automatic_payout_id")
    if kind == "payout":  # it leaves the balance, so it is negative there
        gross, fee, net, payout, about = -gross, -fee, -net, payout or about, None
    if kind == "adjustment":
        about = None
    return checked(Line(
        kind, "stripe", name, about, cell("charge_id") if kind in ("refund", "dispute") else None,
        cell("payment_metadata[ref]"), gross, fee, net, currency, payout, millis(cells[at[time]]),
    ))  # fmt: skip
