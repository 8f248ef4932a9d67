"""Reads Stripe's itemised reports: payout reconciliation, balance change from activity, payouts.

Columns as in docs.stripe.com/reports/report-types (`payout_reconciliation.itemized`,
`balance_change_from_activity.itemized`, `payouts.itemized`): amounts in major units, signed; currency in
small letters. Stripe's export has no trailer: that it is whole is only seen where it has rows of
`reporting_category` payout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Final

from streamsocial_billing.domain.money import exponent_of
from streamsocial_billing.domain.references import our_reference
from streamsocial_billing.gateways.settlement_lines import (
    BadLine,
    Line,
    Reading,
    Rows,
    checked,
    columns,
    currency_of,
    millis,
    minor_units,
    refused,
)

NEEDED: Final = ("balance_transaction_id", "currency", "gross", "fee", "net", "reporting_category")
KIND_OF: Final = {
    "charge": "charge", "charge_failure": "charge", "partial_capture_reversal": "charge",
    "refund": "refund", "refund_failure": "refund", "dispute": "dispute", "dispute_reversal": "dispute",
    "payout": "payout",
}  # fmt: skip
"""`reporting_category` to our kinds; every other one (fee, tax, network_cost, ...) is an adjustment. So is a
payout_reversal: a payout that failed is back in the balance, as a part of the payout that takes it out again.
"""
TIMES: Final = ("created", "effective_at")
SOURCES: Final = ("source_id", "charge_id", "payout_id")


def recognises(header: list[str]) -> bool:
    """True for a file of this format."""
    return {"balance_transaction_id", "reporting_category"} <= {title.strip() for title in header}


@dataclass(frozen=True)
class _Columns:
    """Where things stand, and the zone of the times."""

    at: dict[str, int]
    time: str
    zone: tzinfo
    source: str

    def cell(self, cells: list[str], title: str) -> str | None:
        """A text; None where it is empty or there is no such column."""
        return cells[self.at[title]] or None if title in self.at else None


def read(rows: Rows, name: str, reading: Reading) -> Iterator[tuple[int, Line]]:
    """Every line with its number; raises InputRefused as soon as something cannot be right."""
    number, header = next(rows)
    where = _columns(header, number, name, reading)
    for number, cells in rows:
        try:
            if cells == header:
                raise BadLine("the header once more: is the file there twice?")
            if len(cells) != len(header):
                raise BadLine(f"{len(cells)} columns, not {len(header)}: is the file cut off?")
            for line in _lines(cells, where, reading):
                yield number, line
        except BadLine as bad:
            raise refused(name, number, bad) from None


def _columns(header: list[str], number: int, name: str, reading: Reading) -> _Columns:
    at = columns(header, NEEDED, number, name)
    source = next((one for one in SOURCES if one in at), None)
    if source is None:
        raise refused(name, number, "column source_id is missing")
    for title in TIMES:
        if f"{title}_utc" in at:
            return _Columns(at, f"{title}_utc", UTC, source)
        if title in at:
            if reading.zone is None:
                why = f"column {title} is in the report's own time zone, which the file does not name"
                raise refused(name, number, f"{why}: say it with --report-zone, or export {title}_utc")
            return _Columns(at, title, reading.zone, source)
    raise refused(name, number, "column created_utc is missing")


def _lines(cells: list[str], where: _Columns, reading: Reading) -> Iterator[Line]:
    kind = KIND_OF.get(cells[where.at["reporting_category"]], "adjustment")
    ref = our_reference(where.cell(cells, "refund_metadata[ref]"), where.cell(cells, "payment_metadata[ref]"))
    currency = currency_of(cells[where.at["currency"]], ours=ref is not None)
    gross, fee, net = (
        minor_units(cells[where.at[one]], currency, one, reading) for one in ("gross", "fee", "net")
    )
    if exponent_of(currency) is None:
        net = gross - fee  # each was rounded
    name, about = where.cell(cells, "balance_transaction_id"), where.cell(cells, where.source)
    if name is None:
        raise BadLine("balance_transaction_id is empty")
    when = millis(cells[where.at[where.time]], where.zone)
    payout = where.cell(cells, "automatic_payout_id")
    line = checked(Line(
        kind=kind, gateway="stripe", line_id=name, gateway_ref=about, charge_ref=None, ref=ref, gross=gross,
        fee=fee, net=net, currency=currency, payout_id=payout, at=when,
    ))  # fmt: skip
    if kind == "payout":
        yield from _payout(line, sign=_payout_sign(line, where))
        return
    if kind == "adjustment":
        yield line._replace(gateway_ref=None, ref=None)
        return
    facing = _facing(cells, where, line, reading)
    charge = where.cell(cells, "charge_id") if kind in ("refund", "dispute") else None
    if charge is not None and where.source == "charge_id":  # without source_id it does not say which one
        line = line._replace(gateway_ref=None)
    yield line._replace(charge_ref=charge, facing=facing[0], facing_currency=facing[1])


def _payout_sign(line: Line, where: _Columns) -> int:
    """What is paid leaves the balance: it is negative there. A list of payouts may count what arrived."""
    return 1 if where.source == "payout_id" and line.gross > 0 else -1


def _payout(line: Line, *, sign: int) -> Iterator[Line]:
    """What was paid to us; the fee of an instant payout beside it.

    Only an automatic payout says which lines it is made of: its id is theirs. A manual or instant one has
    none to compare, and keeps its own name alone.
    """
    paid = sign * line.gross
    name = None if line.payout_id is not None else line.gateway_ref
    yield line._replace(gateway_ref=name, gross=paid, fee=0, net=paid)
    if line.fee:
        yield line._replace(
            kind="adjustment", line_id=f"{line.line_id}:fee", gateway_ref=None, payout_id=None, gross=0,
            net=-line.fee,
        )  # fmt: skip


def _facing(
    cells: list[str], where: _Columns, line: Line, reading: Reading
) -> tuple[int | None, str | None]:
    """What the customer paid, where that was in another currency than the line's; with the line's sign."""
    amount, code = where.cell(cells, "customer_facing_amount"), where.cell(cells, "customer_facing_currency")
    if amount is None or code is None:
        return None, None
    try:
        currency = currency_of(code, ours=line.ref is not None)
        if currency == line.currency:
            return None, None
        value = abs(minor_units(amount, currency, "customer_facing_amount", reading))
    except BadLine:
        if line.ref is not None:
            raise
        return None, None  # of others, most likely: else its amount is a break
    return (-value if line.gross < 0 else value), currency
