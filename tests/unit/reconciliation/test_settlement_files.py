"""Settlement files: each format is read to the cent; what cannot be right is refused, with its line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.planted_books import PlantedBooks
from support.planted_output import write_files

from processes import ROOT
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.paypal.settlement import kind_of
from streamsocial_billing.gateways.settlement_lines import KINDS, BadLine, minor_units
from streamsocial_billing.reconciliation.settlement.importing import load
from streamsocial_billing.reconciliation.store import in_memory

OURS = gateway_key_of("ann", "charge", "p-1")
EXAMPLE = ROOT / "examples" / "settlement.csv"
HEADER = "kind,gateway,gateway_ref,charge_ref,ref,gross,fee,net,currency,payout_id,created_at\n"
LINES = (
    "charge,simulated,ch_1,,,10.00,0.30,9.70,USD,po_1,2026-03-02 10:00:00\n"
    "refund,simulated,re_1,ch_1,,-4.00,0.00,-4.00,USD,po_1,2026-03-02 11:00:00\n"
    "charge,simulated,ch_2,,,500,12,488,JPY,po_1,2026-03-02 12:00:00\n"
    "charge,simulated,ch_3,,,1.234,0.004,1.230,KWD,po_1,2026-03-02 12:00:00\n"
)
TRAILER = "trailer,,2,,,,,5.70,USD,,\ntrailer,,1,,,,,488,JPY,,\ntrailer,,1,,,,,1.230,KWD,,\n"
GOOD = HEADER + LINES + TRAILER
STRIPE_HEADER = (
    "automatic_payout_id,balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,"
    "source_id,charge_id\n"
)
STRIPE = STRIPE_HEADER + (
    "po_1,txn_1,2026-03-02 10:00:00,usd,10.00,0.59,9.41,charge,ch_1,ch_1\n"
    "po_1,txn_2,2026-03-02 10:00:00,usd,0.00,2.00,-2.00,fee,,\n"
    "po_1,txn_3,2026-03-03 10:00:00,usd,-7.41,0.00,-7.41,payout,po_1,\n"
)
PAYPAL = (
    '"RH","2026/03/06 23:59:59 +0000","A","M","009"\n"FH",1\n"SH","a","b","M",""\n'
    '"CH","Transaction ID","Invoice ID","PayPal Reference ID","Transaction Event Code",'
    '"Transaction Initiation Date","Transaction  Debit or Credit","Gross Transaction Amount",'
    '"Gross Transaction Currency","Fee Debit or Credit","Fee Amount"\n'
    f'"SB","T1","{OURS}","","T0006","2026/03/02 10:00:00 -0800","CR",1000,"USD","DR",59\n'
    '"SB","T2","","","T0400","2026/03/03 10:00:00 -0800","DR",941,"USD","",""\n'
    '"SF","USD",1000,941,0,59,0,0\n"SC",2\n"RF","USD",1000,941,0,59,0,0\n"RC",2\n"FF",2\n'
)


def written(folder: Path, text: str | bytes, name: str = "file.csv") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Kind, reference, minor units, currency, payout of each kept line."""
    return db.execute(
        "SELECT kind, gateway_ref, gross, fee, net, currency, payout_id FROM kept.lines ORDER BY id"
    ).fetchall()


def test_our_own_format_is_read_to_the_cent(tmp_path: Path) -> None:
    """Two, no and three digits after the point; a byte order mark is fine."""
    db = in_memory()
    assert load(db, written(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()))
    assert [
        ("charge", "ch_1", 1000, 30, 970, "USD", "po_1"), ("refund", "re_1", -400, 0, -400, "USD", "po_1"),
        ("charge", "ch_2", 500, 12, 488, "JPY", "po_1"), ("charge", "ch_3", 1234, 4, 1230, "KWD", "po_1"),
    ] == lines(db)  # fmt: skip


def test_the_example_of_our_own_format_is_read() -> None:
    """examples/settlement.csv has every usual kind of line; what was paid out is what the lines add up to."""
    db = in_memory()
    assert load(db, EXAMPLE)
    found = db.execute("SELECT kind, net, currency FROM kept.lines ORDER BY id").fetchall()
    assert KINDS - {"conversion"} == {kind for kind, _, _ in found}
    for currency in ("USD", "JPY"):
        paid = [net for kind, net, code in found if kind == "payout" and code == currency]
        assert paid == [sum(net for kind, net, code in found if kind != "payout" and code == currency)]
    page = (ROOT / "docs" / "reconciliation.md").read_text(encoding="utf-8")
    assert "(../examples/settlement.csv)" in page


def test_stripes_report_is_read(tmp_path: Path) -> None:
    """A payout leaves the balance there, here it is what was paid to us; a fee is an adjustment."""
    db = in_memory()
    load(db, written(tmp_path, STRIPE))
    assert [
        ("charge", "ch_1", 1000, 59, 941, "USD", "po_1"), ("adjustment", None, 0, 200, -200, "USD", "po_1"),
        ("payout", None, 741, 0, 741, "USD", "po_1"),
    ] == lines(db)  # fmt: skip


def test_paypals_report_is_read(tmp_path: Path) -> None:
    """Unsigned minor units with CR and DR; our reference is the invoice id; a withdrawal is a payout."""
    db = in_memory()
    load(db, written(tmp_path, PAYPAL))
    charge, payout = lines(db)
    assert ("charge", "T1", 1000, 59, 941, "USD", None) == charge
    assert ("payout", None, 941, 0, 941, "USD", None) == payout
    assert [(OURS, 1772474400000)] == db.execute("SELECT ref, at FROM kept.lines LIMIT 1").fetchall()


@pytest.mark.parametrize(
    ("code", "gross", "kind"),
    [("T0006", 1, "charge"), ("T0006", -1, "adjustment"), ("T1107", -1, "refund"), ("T1201", -1, "dispute"),
     ("T0400", -1, "payout"), ("T0200", 1, "conversion"), ("T1202", 1, "dispute"), ("T1106", -1, "dispute")],
)  # fmt: skip
def test_paypals_codes_have_kinds(code: str, gross: int, kind: str) -> None:
    """T-codes of the settlement report."""
    assert kind == kind_of(code, gross)


BAD: dict[str, tuple[str | bytes, str]] = {
    "cut at a line": (HEADER + LINES, "line 5: the file ends without a trailer for JPY: it is cut off"),
    "cut in a line": (GOOD[: len(HEADER) + 30], "line 2: 7 columns, not 11: is the file cut off?"),
    "twice in one": (GOOD + GOOD, "line 9: the header once more: is the file there twice?"),
    "lines twice": (
        HEADER + LINES + LINES + TRAILER, "line 10: the trailer counts 2 lines in USD, the file has 4"
    ),
    "lines after the trailer": (GOOD + LINES, "line 9: a line after the trailer: is the file there twice?"),
    "wrong sum": (
        GOOD.replace("5.70", "5.71"), "line 6: the trailer sums 571 minor units of USD, the lines 570"
    ),
    "wrong count": (GOOD.replace("trailer,,2", "trailer,,3"), "counts 3 lines in USD, the file has 2"),
    "gross - fee": (GOOD.replace("0.30", "0.31", 1), "line 2: gross - fee is not net: 1000 - 31 is not 970"),
    "not UTF-8": (GOOD.replace("re_1", "ré").encode("latin-1"), "line 3: not UTF-8 (byte 19 of the line)"),
    "UTF-16": (GOOD.encode("utf-16"), "line 1: not UTF-8"),
    "zero byte": (GOOD.replace("re_1", "r\0"), "line 3: a zero byte"),
    "half a yen": (GOOD.replace("500", "500.5"), "line 4: gross is 500.5: JPY has 0 digits after the point"),
    "not a number": (GOOD.replace("500", "1e3"), "line 4: gross is '1e3', not a decimal number"),
    "no currency": (GOOD.replace("USD", "U$D"), "line 2: currency is 'U$D', none that is known"),
    "ours in a currency that we never charge": (
        GOOD.replace("ch_1,,", f"ch_1,,{OURS}", 1).replace("USD", "ANG"), "line 2: currency is 'ANG', none"
    ),
    "unknown gateway": (GOOD.replace("simulated", "adyen"), "line 2: gateway is 'adyen'"),
    "unknown kind": (GOOD.replace("refund,", "gift,"), "line 3: kind is 'gift'"),
    "open quote": (GOOD.replace("ch_2", '"ch_2'), "unexpected end of data: is the file cut off?"),
    "bad time": (GOOD.replace("2026-03-02 12", "2026-13-02 12"), "line 4: the time is '2026-13-02"),
    "foreign header": ("a,b\n1,2\n", "line 1: the header is of none of the formats that are known"),
    "empty": ("", "the file is empty"),
    "no lines": (HEADER + "trailer,,0,,,,,0,USD,,\n", "the file has no lines"),
    "Stripe: cut in a line": (STRIPE[:-20], "line 4: 6 columns, not 10: is the file cut off?"),
    "Stripe: twice in one": (STRIPE + STRIPE, "line 5: the header once more: is the file there twice?"),
    "Stripe: a line twice": (
        STRIPE + STRIPE.splitlines()[1], "line 5: txn_1 stands in the file a second time"
    ),
    "Stripe: wrong net": (STRIPE.replace("9.41", "9.42"), "line 2: gross - fee is not net"),
    "Stripe: no column": (STRIPE.replace(",net,", ",nett,"), "line 1: column net is missing"),
    "PayPal: cut": (PAYPAL.partition('"RC"')[0], "ends without the report's count (RC): it is cut off"),
    "PayPal: rows lost": (
        PAYPAL.replace('"SB","T2","","","T0400","2026/03/03 10:00:00 -0800","DR",941,"USD","",""\n', ""),
        "line 6: the section's gross debits are 941 USD, the rows' 0",
    ),
    "PayPal: wrong count": (
        PAYPAL.replace('"SC",2', '"SC",3'), "line 8: the section counts 3 rows, it has 2"
    ),
    "PayPal: twice in one": (PAYPAL + PAYPAL, "line 12: row RH after the report's count"),
    "PayPal: no CR or DR": (PAYPAL.replace('"CR"', '"C"'), "line 5: Transaction Debit or Credit is 'C'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_right_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    """One line for people that names file and line."""
    content, why = BAD[name]
    with pytest.raises(InputRefused) as refused:
        load(in_memory(), written(tmp_path, content))
    assert str(refused.value).startswith("file.csv: ")
    assert why in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    """Loaded twice, under whatever name, it counts once."""
    db = in_memory()
    assert load(db, written(tmp_path, GOOD))
    assert not load(db, written(tmp_path, GOOD, "other.csv"))
    assert 4 == len(lines(db))


def test_exports_may_overlap(tmp_path: Path) -> None:
    """A line that has a name counts once; one that says something else than before is refused."""
    db = in_memory()
    load(db, written(tmp_path, STRIPE))
    more = STRIPE + "po_2,txn_4,2026-03-04 10:00:00,usd,1.00,0.00,1.00,charge,ch_4,ch_4\n"
    load(db, written(tmp_path, more, "more.csv"))
    assert 4 == len(lines(db))
    other = STRIPE.replace("10.00,0.59,9.41", "11.00,0.59,10.41")
    with pytest.raises(InputRefused, match="third.csv: line 2: txn_1 differs from what file.csv says"):
        load(db, written(tmp_path, other, "third.csv"))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """No traceback."""
    with pytest.raises(InputRefused, match="none.csv: No such file"):
        load(in_memory(), tmp_path / "none.csv")


def test_amounts_are_exact() -> None:
    """Decimal all the way: a float would lose the cent."""
    assert 10**15 == minor_units("10000000000000.00", "USD", "x")
    assert -1 == minor_units("-0.01", "USD", "x")
    assert 1100 == minor_units("11.000", "USD", "x")
    with pytest.raises(BadLine, match="more than can be"):
        minor_units("10000000000000.01", "USD", "x")


def test_planted_files_load_in_every_format(tmp_path: Path) -> None:
    """What the generator of the integration tests writes."""
    made = PlantedBooks()
    made.normal(60)
    db = in_memory()
    for path in write_files(made, tmp_path):
        load(db, path)
    formats = db.execute("SELECT format FROM kept.files ORDER BY format").fetchall()
    assert [("paypal",), ("simple",), ("stripe",)] == formats
