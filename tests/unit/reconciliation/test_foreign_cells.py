"""What stands in the cells of others: refused on its way in, no formula on its way out."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from support.planted_books import AS_OF

from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.reconciliation.breaks import Break
from streamsocial_billing.reconciliation.report import write_csv
from streamsocial_billing.reconciliation.rules import Rules
from streamsocial_billing.reconciliation.run import keep_breaks
from streamsocial_billing.reconciliation.settlement.importing import load
from streamsocial_billing.reconciliation.store import in_memory

GOOD = (
    "kind,gateway,gateway_ref,charge_ref,ref,gross,fee,net,currency,payout_id,created_at\n"
    "charge,simulated,ch_1,,,10.00,0.30,9.70,USD,po_1,2026-03-02 10:00:00\n"
    "refund,simulated,re_1,ch_1,,-4.00,0.00,-4.00,USD,po_1,2026-03-02 11:00:00\n"
    "charge,simulated,ch_2,,,500,12,488,JPY,po_1,2026-03-02 12:00:00\n"
    "trailer,,2,,,,,5.70,USD,,\ntrailer,,1,,,,,488,JPY,,\n"
)
STRIPE = (
    "automatic_payout_id,balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id\n"
    "po_1,txn_1,2026-03-02 10:00:00,usd,10.00,0.59,9.41,charge,ch_1\n"
    "po_1,txn_2,2026-03-02 10:00:00,usd,0.00,2.00,-2.00,fee,\n"
)
RULES = Rules(as_of=AS_OF, told_by=lambda _: AS_OF)


def written(folder: Path, text: str) -> Path:
    """A file with this content, to the byte."""
    path = folder / "file.csv"
    path.write_bytes(text.encode())
    return path


def broken(gateway_ref: str) -> Break:
    """A break with this id."""
    return Break(
        class_="missing_internal", legs=("simulated", "ch_1"), gateway="simulated", kind="charge",
        currency="EUR", at_stake=1234, since=AS_OF, gateway_ref=gateway_ref,
    )  # fmt: skip


def cell_of(text: str) -> tuple[str, str]:
    """The cell that `breaks.csv` has for this text; the file."""
    db = in_memory()
    keep_breaks(db, RULES, [broken(text)])
    file = io.StringIO(newline="")
    write_csv(db, file)
    return next(csv.DictReader(io.StringIO(file.getvalue(), newline="")))["gateway_ref"], file.getvalue()


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
@pytest.mark.parametrize(
    "before",
    ["", " ", "\u00a0", "\t", "\r", "\n", "\u200b", "x;", "x,", "x\t", "x\r", "x\n", "x|", "x; ",
     'x";', 'x"'],
)  # fmt: skip
def test_no_cell_is_a_formula_in_any_country(before: str, sign: str) -> None:
    """Whatever the spreadsheet takes for the end of a cell, what follows is a text."""
    cell, _ = cell_of(f"{before}{sign}1+1")

    assert f"{before}'{sign}1+1" == cell


def test_every_cell_is_quoted() -> None:
    """A quoted cell holds separators, quotes, line ends; what is no formula is written as it is."""
    for text in ("ch_1", "a-b", 'say "x"', "a;b,c", "a - b", "user@example.com", "1=1"):
        cell, file = cell_of(text)
        assert text == cell
        first, second = file.splitlines()[:2]
        assert '"id","class"' == first[:12]
        assert second.startswith('"')
        assert second.endswith('"')


@pytest.mark.parametrize("sign", ["\x1b[2J", "\r=1+1", "\x07", "\x7f", "\x9b2J", "\u202e", "\u2028", "\x0b"])
def test_control_characters_are_refused_with_line_and_column(sign: str, tmp_path: Path) -> None:
    """No export has them; the message has none either."""
    text = GOOD.replace("re_1,ch_1", f're_1,"ch_1{sign}"')

    with pytest.raises(InputRefused) as refused:
        load(in_memory(), written(tmp_path, text))

    said = str(refused.value)
    assert f"file.csv: line 3: column 4 (charge_ref) holds a control character, U+{ord(sign[0]):04X}" in said
    assert said.isprintable()


def test_a_text_of_several_lines_that_nobody_reads_is_let_through(tmp_path: Path) -> None:
    """Stripe exports what merchants wrote as description."""
    rows = STRIPE.splitlines()
    text = "\n".join([f"{rows[0]},description", *(f'{row},"two\r\nlines\tand a tab"' for row in rows[1:])])
    db = in_memory()

    assert load(db, written(tmp_path, text + "\n"))
    assert (2,) == db.execute("SELECT count(*) FROM kept.lines").fetchone()


@pytest.mark.parametrize("bad", ["two\nlines", "x" * 256])
def test_an_id_is_one_line_of_some_length(bad: str, tmp_path: Path) -> None:
    """It would stand in every report."""
    with pytest.raises(InputRefused, match=r"line \d: gateway_ref is '.*: 1 to 255 characters"):
        load(in_memory(), written(tmp_path, GOOD.replace(",ch_2,", f',"{bad}",')))


def test_a_card_number_in_a_reference_is_masked(tmp_path: Path) -> None:
    """The line counts; the number is kept nowhere."""
    db = in_memory()
    load(db, written(tmp_path, GOOD.replace(",ch_2,", ",4242.4242.4242.4242,")))

    assert ["****.****.****.4242"] == [
        ref for (ref,) in db.execute("SELECT gateway_ref FROM kept.lines WHERE currency = 'JPY'")
    ]
