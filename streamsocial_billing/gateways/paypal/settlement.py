"""Reads PayPal's settlement report (STL files).

Rows by their first cell: RH report header, FH file header (its number), SH section header (one account and
period), CH column titles, SB a transaction, SF section totals by currency, SC the section's count of SB rows,
RF report totals, RC the report's count, FF file footer (developer.paypal.com, Settlement Report
Specification). A report over several files has RF and RC in the last one alone, and they count all. Amounts
are unsigned, with a column CR or DR beside them, and have two implied digits in every currency: two parsers
in production divide all of them by 100, yen too; no yen file of the real PayPal was read here. A payout is a
withdrawal (T04xx); its lines are not named, so it cannot be compared with their sum.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from streamsocial_billing.domain.money import exponent_of
from streamsocial_billing.domain.references import our_reference
from streamsocial_billing.gateways.moved import DISPUTE, DISPUTE_WON, paypal_kind
from streamsocial_billing.gateways.settlement_lines import (
    UNKNOWN_EXPONENT,
    BadLine,
    Line,
    Rows,
    bounded,
    checked,
    columns,
    currency_of,
    millis,
    refused,
    whole_minor_units,
)
from streamsocial_billing.gateways.settlement_parts import KeptParts, PartsMissing, Sums

ROWS: Final = frozenset({"RH", "FH", "SH", "CH", "SB", "SF", "SC", "RF", "RC", "FF"})
FIRST: Final = frozenset({"RH", "FH", "SH"})
"""What a file may begin with: only the first file of a report has RH."""
IMPLIED_DIGITS: Final = 2
NEEDED: Final = (
    "Transaction ID", "PayPal Reference ID", "Transaction Event Code", "Transaction Initiation Date",
    "Transaction Debit or Credit", "Gross Transaction Amount", "Gross Transaction Currency",
    "Fee Debit or Credit", "Fee Amount",
)  # fmt: skip
TOTALS: Final = ("gross credits", "gross debits", "fee credits", "fee debits")


def recognises(header: list[str]) -> bool:
    """True for a file of this format."""
    return bool(header) and header[0] in FIRST


@dataclass
class _Seen:
    """What was read so far; sums in hundredths, as the file has them.

    `before`: rows and sums of the report's earlier files; `report`: of this one. `key` names the report: its
    period and account; a file that goes on amid a section has only the `day` in its name.
    """

    parts: KeptParts
    day: str = ""
    number: int = 1
    key: str = ""
    titles: dict[str, int] = field(default_factory=dict)
    section: Sums = field(default_factory=Counter)
    report: Sums = field(default_factory=Counter)
    section_rows: int = 0
    report_rows: int = 0
    before: tuple[int, Sums] | None = None
    headed: bool = False
    totalled: bool = False
    ended: bool = False
    footer: bool = False


_DATE: Final = re.compile(r"\d{8}")


def read(rows: Rows, name: str, parts: KeptParts) -> Iterator[tuple[int, Line]]:
    """Every line with its number; raises InputRefused as soon as something cannot be right.

    PartsMissing is raised for the last file of a report whose other files are not loaded.
    """
    dated = _DATE.search(name)
    seen, last = _Seen(parts, day=dated[0] if dated else ""), 0
    for number, cells in rows:
        try:
            if cells[0] not in ROWS:
                raise BadLine(f"row type {cells[0][:10]!a} is none of a settlement report")
            if seen.ended and cells[0] not in ("RF", "RC", "FF"):
                raise BadLine(f"row {cells[0]} after the report's count: is the file there twice?")
            if seen.footer:
                raise BadLine(f"row {cells[0]} after the file's footer: is the file there twice?")
            if cells[0] == "CH":
                titles = [" ".join(title.split()) for title in cells]  # "Transaction  Debit or Credit" (sic)
                seen.titles = columns(titles, NEEDED, number, name)
            elif cells[0] == "SB":
                for line in _lines(cells, seen):
                    yield number, line
            else:
                _check(cells, seen, name)
        except BadLine as bad:
            raise refused(name, number, bad) from None
        last = number
    _check_end(seen, name, last)
    for key in {seen.key, seen.day} - {""}:
        parts.keep(key, seen.number, seen.report_rows, seen.report)


def _check_end(seen: _Seen, name: str, last: int) -> None:
    """Whole: it ends with the report's count, or is one of several files and ends with its own footer."""
    if seen.ended or (seen.footer and not seen.totalled):
        return
    if seen.totalled and not seen.headed:  # an extract of sections, without headers and counts
        return
    raise refused(name, last, "the file ends without the report's count (RC): it is cut off")


def _check(cells: list[str], seen: _Seen, name: str) -> None:
    """Headers; section and report footers against what was read."""
    match cells[0]:
        case "RH":
            seen.headed = True
        case "FH":
            seen.headed = True
            seen.number = _number(cells)
        case "SH":
            seen.section, seen.section_rows = Counter(), 0
            seen.key = seen.key or "|".join(cell.strip() for cell in cells[1:4])
        case "SF":
            _check_totals(cells, seen.section, "section")
        case "SC":
            _check_count(cells, seen.section_rows, "section")
        case "RF":
            seen.totalled = True
            _check_totals(cells, _before(seen, name)[1] + seen.report, "report")
        case "RC":
            _check_count(cells, _before(seen, name)[0] + seen.report_rows, "report")
            seen.ended = True
        case "FF":
            seen.footer = True


def _number(cells: list[str]) -> int:
    text = cells[1].strip() if len(cells) > 1 else ""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) < 10_000:
        raise BadLine(f"the file's number is {text[:20]!a}, not 1, 2, ...")
    return int(text[:9])


def _before(seen: _Seen, name: str) -> tuple[int, Sums]:
    """What the report's earlier files had."""
    if seen.before is None:
        tried = (seen.parts.before(key, seen.number) for key in (seen.key, seen.day))
        found = next((one for one in tried if one is not None), None)
        if found is None:
            raise PartsMissing(
                f"{name}: file {seen.number} of a report that counts all its files: "
                f"give the {seen.number - 1} before it, too"
            )
        seen.before = found
    return seen.before


def _check_totals(cells: list[str], sums: Sums, what: str) -> None:
    if len(cells) < 6:
        raise BadLine(f"the {what}'s totals have {len(cells)} columns: is the file cut off?")
    currency = currency_of(cells[1], ours=False)
    stated = [whole_minor_units(cells[2 + place], title) for place, title in enumerate(TOTALS)]
    found = [sums[currency, place] for place in range(len(TOTALS))]
    if stated[2:] == found[:1:-1]:  # the specification has the fees' credits first, samples the debits
        stated[2:] = found[2:]
    for title, said, summed in zip(TOTALS, stated, found, strict=True):
        if said != summed:
            raise BadLine(f"the {what}'s {title} are {said} {currency}, the rows' {summed}")


def _check_count(cells: list[str], rows: int, what: str) -> None:
    if len(cells) < 2 or cells[1].strip() != str(rows):
        raise BadLine(f"the {what} counts {' '.join(cells[1:2])[:20]} rows, it has {rows}")


def _lines(cells: list[str], seen: _Seen) -> Iterator[Line]:
    """The transaction; a fee in another currency than its own stands beside it."""
    at = seen.titles
    if not at:
        raise BadLine("a transaction before the column titles (CH)")
    if len(cells) != len(at):
        raise BadLine(f"{len(cells)} columns, not {len(at)}: is the file cut off?")
    ref = our_reference(*(cells[at[title]] for title in ("Invoice ID", "Custom Field") if title in at))
    currency = currency_of(cells[at["Gross Transaction Currency"]], ours=ref is not None)
    gross = _signed(
        cells=cells, at=at, way="Transaction Debit or Credit", amount="Gross Transaction Amount",
        currency=currency, seen=seen, place=0,
    )  # fmt: skip
    paid_in = cells[at["Fee Currency"]] if "Fee Currency" in at else ""
    fee_currency = currency_of(paid_in, ours=False) if paid_in and cells[at["Fee Amount"]] else currency
    fee = -_signed(
        cells=cells, at=at, way="Fee Debit or Credit", amount="Fee Amount", currency=fee_currency, seen=seen,
        place=2,
    )  # fmt: skip
    apart, fee = (0, fee) if fee_currency == currency else (fee, 0)
    seen.section_rows += 1
    seen.report_rows += 1
    code, name = cells[at["Transaction Event Code"]], cells[at["Transaction ID"]]
    kind = kind_of(code, gross)
    when = cells[at["Transaction Initiation Date"]].replace("/", "-")
    stamp = "".join(when.rsplit(" ", 1)) if when.count(" ") == 2 else when
    if kind == "payout":  # it leaves the balance: what was paid to us
        gross, fee = -gross, -fee
    moved = kind in ("charge", "refund", "dispute")
    both = f":{currency}" if kind == "conversion" else ""  # its two sides have one name
    yield checked(Line(
        kind=kind, gateway="paypal", line_id=f"{name}:{code}{both}", gateway_ref=name if moved else None,
        charge_ref=cells[at["PayPal Reference ID"]] or None if kind in ("refund", "dispute") else None,
        ref=ref if moved else None, gross=gross, fee=fee, net=gross - fee, currency=currency, payout_id=None,
        at=millis(stamp),
    ))  # fmt: skip
    if apart:
        yield checked(Line(
            kind="adjustment", gateway="paypal", line_id=f"{name}:{code}{both}:fee", gateway_ref=None,
            charge_ref=None, ref=None, gross=0, fee=apart, net=-apart, currency=fee_currency, payout_id=None,
            at=millis(stamp),
        ))  # fmt: skip


def kind_of(code: str, gross: int) -> str:
    """Our kind of a transaction event code (T-code)."""
    kind = paypal_kind(code, gross)
    return "adjustment" if kind is None else DISPUTE if kind == DISPUTE_WON else kind


def _signed(
    cells: list[str], at: dict[str, int], way: str, amount: str, currency: str, seen: _Seen, place: int
) -> int:
    """Minor units, a credit as it is, a debit negative; adds what the file says to the totals."""
    text, said = cells[at[amount]], cells[at[way]]
    if not text:
        return 0
    value = whole_minor_units(text, amount)
    if said not in ("CR", "DR"):
        raise BadLine(f"{way} is {said[:10]!a}, neither CR nor DR")
    debit = said == "DR"
    for sums in (seen.section, seen.report):
        sums[currency, place + debit] += value
    minor = _minor(value, currency, amount)
    return -minor if debit else minor


def _minor(hundredths: int, currency: str, what: str) -> int:
    """Hundredths of the main unit to minor units; refused where they are not whole."""
    known = exponent_of(currency)
    more = (UNKNOWN_EXPONENT if known is None else known) - IMPLIED_DIGITS
    if more >= 0:
        return bounded(hundredths * int("1" + "0" * more), what)
    minor, rest = divmod(hundredths, int("1" + "0" * -more))
    if rest:
        raise BadLine(f"{what} is {hundredths}, hundredths of {currency}: that is not whole")
    return minor
