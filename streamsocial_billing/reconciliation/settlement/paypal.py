"""Reads PayPal's settlement report (STL files).

Rows by their first cell: RH report header, FH file header, SH section header (one account), CH column
titles, SB a transaction, SF section totals by currency, SC the section's count of SB rows, RF report totals,
RC the report's count, FF file footer (developer.paypal.com, Settlement Report Specification). Amounts are
unsigned minor units with a column CR or DR beside them. A payout is a withdrawal (T04xx); its lines are not
named, so it cannot be compared with their sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from streamsocial_billing.reconciliation.settlement.lines import (
    BadLine,
    Line,
    Rows,
    checked,
    columns,
    known_currency,
    millis,
    refused,
    whole_minor_units,
)

ROWS: Final = frozenset({"RH", "FH", "SH", "CH", "SB", "SF", "SC", "RF", "RC", "FF"})
NEEDED: Final = (
    "Transaction ID", "PayPal Reference ID", "Transaction Event Code", "Transaction Initiation Date",
    "Transaction Debit or Credit", "Gross Transaction Amount", "Gross Transaction Currency",
    "Fee Debit or Credit", "Fee Amount",
)  # fmt: skip
TOTALS: Final = ("gross credits", "gross debits", "fee credits", "fee debits")


def recognises(header: list[str]) -> bool:
    """True for a file of this format."""
    return bool(header) and header[0] == "RH"


@dataclass
class _Seen:
    """What was read so far; a section's totals, the report's totals are kept alike."""

    titles: dict[str, int] = field(default_factory=dict)
    section: Counter[tuple[str, int]] = field(default_factory=Counter)
    report: Counter[tuple[str, int]] = field(default_factory=Counter)
    section_rows: int = 0
    report_rows: int = 0
    ended: bool = False


def read(rows: Rows, name: str) -> Iterator[tuple[int, Line]]:
    """Every line with its number; raises InputRefused as soon as something cannot be right."""
    seen, last = _Seen(), 0
    for number, cells in rows:
        try:
            if cells[0] not in ROWS:
                raise BadLine(f"row type {cells[0][:10]!a} is none of a settlement report")
            if seen.ended and cells[0] not in ("RF", "RC", "FF"):
                raise BadLine(f"row {cells[0]} after the report's count: is the file there twice?")
            if cells[0] == "CH":
                titles = [" ".join(title.split()) for title in cells]  # "Transaction  Debit or Credit" (sic)
                seen.titles = columns(titles, NEEDED, number, name)
            elif cells[0] == "SB":
                yield number, _line(cells, seen)
            else:
                _check(cells, seen)
        except BadLine as bad:
            raise refused(name, number, bad) from None
        last = number
    if not seen.ended:
        raise refused(name, last, "the file ends without the report's count (RC): it is cut off")


def _check(cells: list[str], seen: _Seen) -> None:
    """Section and report footers against what was read."""
    match cells[0]:
        case "SH":
            seen.section, seen.section_rows = Counter(), 0
        case "SF":
            _check_totals(cells, seen.section, "section")
        case "RF":
            _check_totals(cells, seen.report, "report")
        case "SC":
            _check_count(cells, seen.section_rows, "section")
        case "RC":
            _check_count(cells, seen.report_rows, "report")
            seen.ended = True


def _check_totals(cells: list[str], sums: Counter[tuple[str, int]], what: str) -> None:
    if len(cells) < 6:
        raise BadLine(f"the {what}'s totals have {len(cells)} columns: is the file cut off?")
    currency = known_currency(cells[1])
    for place, title in enumerate(TOTALS):
        stated = whole_minor_units(cells[2 + place], title)
        if stated != sums[currency, place]:
            raise BadLine(f"the {what}'s {title} are {stated} {currency}, the rows' {sums[currency, place]}")


def _check_count(cells: list[str], rows: int, what: str) -> None:
    if len(cells) < 2 or cells[1].strip() != str(rows):
        raise BadLine(f"the {what} counts {' '.join(cells[1:2])[:20]} rows, it has {rows}")


def _line(cells: list[str], seen: _Seen) -> Line:
    at = seen.titles
    if not at:
        raise BadLine("a transaction before the column titles (CH)")
    if len(cells) != len(at):
        raise BadLine(f"{len(cells)} columns, not {len(at)}: is the file cut off?")
    currency = known_currency(cells[at["Gross Transaction Currency"]])
    gross = _signed(cells, at, "Transaction Debit or Credit", "Gross Transaction Amount", currency, seen, 0)
    fee = -_signed(cells, at, "Fee Debit or Credit", "Fee Amount", currency, seen, 2)
    seen.section_rows += 1
    seen.report_rows += 1
    code, name = cells[at["Transaction Event Code"]], cells[at["Transaction ID"]]
    kind = kind_of(code, gross)
    when = cells[at["Transaction Initiation Date"]].replace("/", "-")
    stamp = "".join(when.rsplit(" ", 1)) if when.count(" ") == 2 else when
    if kind == "payout":  # it leaves the balance: what was paid to us
        gross, fee = -gross, -fee
    return checked(Line(
        kind, "paypal", f"{name}:{code}", name if kind in ("charge", "refund", "dispute") else None,
        cells[at["PayPal Reference ID"]] or None if kind in ("refund", "dispute") else None, _ref(cells, at),
        gross, fee, gross - fee, currency, None, millis(stamp),
    ))  # fmt: skip


def _ref(cells: list[str], at: dict[str, int]) -> str | None:
    for title in ("Invoice ID", "Custom Field"):
        words = cells[at[title]].split() if title in at else []
        if words and words[0].startswith("ss1_"):
            return words[0]
    return None


def kind_of(code: str, gross: int) -> str:
    """Our kind of a transaction event code (T-code)."""
    if code.startswith("T00") and gross > 0:
        return "charge"
    if code == "T1107":
        return "refund"
    if code in ("T1106", "T1201", "T1202"):
        return "dispute"
    return "payout" if code.startswith("T04") else "adjustment"


def _signed(
    cells: list[str], at: dict[str, int], way: str, amount: str, currency: str, seen: _Seen, place: int
) -> int:
    """A credit as it is, a debit negative; adds it to the totals."""
    text, said = cells[at[amount]], cells[at[way]]
    if not text:
        return 0
    value = whole_minor_units(text, amount)
    if said not in ("CR", "DR"):
        raise BadLine(f"{way} is {said[:10]!a}, neither CR nor DR")
    debit = said == "DR"
    for sums in (seen.section, seen.report):
        sums[currency, place + debit] += value
    return -value if debit else value
