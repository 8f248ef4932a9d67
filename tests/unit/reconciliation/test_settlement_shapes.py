"""Settlement files as they come: columns of the public shapes, amounts of ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.planted_books import AS_OF
from support.small_books import OLD, filled, found_in, reconciled, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.settlement_lines import Line, Reading
from streamsocial_billing.gateways.settlement_parts import PartsMissing
from streamsocial_billing.reconciliation.bridge import bridges
from streamsocial_billing.reconciliation.settlement.importing import load, load_all
from streamsocial_billing.reconciliation.store import KEPT_NAME, in_memory, opened

OURS = gateway_key_of("ann", "charge", "p0")
BALANCE = ("balance_transaction_id,created_utc,available_on_utc,currency,gross,fee,net,"
           "reporting_category,source_id,description,customer_facing_amount,customer_facing_currency,"
           "automatic_payout_id,automatic_payout_effective_at_utc,charge_id,payment_intent_id,"
           "payment_metadata[ref]\n")  # fmt: skip
PAYOUTS = ("payout_id,effective_at_utc,currency,balance_transaction_id,gross,fee,net,reporting_category,"
           "payout_expected_arrival_date,payout_status,description\n")  # fmt: skip


def balance(name: str, category: str, gross: str, fee: str, net: str, source: str, *, payout: str = "",
            currency: str = "usd", facing: str = ",", charge: str = "", ref: str = "") -> str:  # fmt: skip
    """A line of Stripe's balance report."""
    at = "2026-02-14 10:00:00"
    return (f"{name},{at},{at},{currency},{gross},{fee},{net},{category},{source},some words,{facing},"
            f"{payout},,{charge},,{ref}\n")  # fmt: skip


def payout(name: str, txn: str, gross: str, fee: str = "0.00", net: str | None = None) -> str:
    """A line of Stripe's list of payouts."""
    at, money = "2026-02-16 00:00:00", f"{gross},{fee},{net or gross}"
    return f"{name},{at},usd,{txn},{money},payout,2026-02-17,paid,STRIPE PAYOUT\n"


def written(folder: Path, text: str, name: str = "file.csv") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


SHOWN = "kind, gateway_ref, gross, fee, net, currency, payout_id"


def lines(db: sqlite3.Connection, what: str = SHOWN) -> Any:
    """The kept lines."""
    return db.execute(f"SELECT {what} FROM kept.lines ORDER BY id").fetchall()  # noqa: S608 - constants


def loaded(folder: Path, *texts: str, reading: Reading | None = None) -> sqlite3.Connection:
    """A store with these files."""
    db = in_memory()
    paths = [written(folder, text, f"file{at}.csv") for at, text in enumerate(texts)]
    load_all(db, paths, reading)
    return db


def payout_breaks(db: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Each `payout_total`: id, paid, sum of the lines."""
    return [(one["payout_id"], one["theirs_minor"], one["settled_minor"])
            for one in found_in(db) if one["class"] == "payout_total"]  # fmt: skip


# ---- payouts


def test_stripes_list_of_payouts_is_read(tmp_path: Path) -> None:
    """`payouts.itemized`, paid as negative or positive; compared where lines name the payout."""
    activity = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1", payout="po_1", charge="ch_1")
    for sign in ("-", ""):
        db = loaded(tmp_path, BALANCE + activity, PAYOUTS + payout("po_1", "txn_9", f"{sign}9.00"))
        assert ("payout", "po_1", 900, 0, 900, "USD", None) == lines(db)[1]
        assert [("po_1", 900, 941)] == payout_breaks(db)


def test_row_j_a_payout_without_its_lines_has_none_to_compare(tmp_path: Path) -> None:
    """Manual and instant: no `automatic_payout_id`. An instant one's fee is a fee; the bridge ends there."""
    manual = balance("txn_2", "payout", "-5.00", "0.00", "-5.00", "po_manual")
    instant = balance("txn_3", "payout", "-3.00", "0.05", "-3.05", "po_instant")
    charged = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1")
    db = loaded(tmp_path, BALANCE + charged + manual + instant)
    assert [] == payout_breaks(db)
    kept = lines(db, "kind, gateway_ref, gross, payout_id")[1:]
    assert [("payout", "po_manual", 500, None), ("payout", "po_instant", 300, None)] == kept[:2]
    assert [("adjustment", None, 0, None)] == kept[2:]
    (bridge,) = bridges(db)
    assert ([], 800, 64) == (bridge.problems(), bridge.amounts["paid_out"], bridge.amounts["fees"])


def test_an_automatic_payout_is_compared(tmp_path: Path) -> None:
    """Its lines bear its id."""
    charged = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1", payout="po_1")
    paid = balance("txn_2", "payout", "-9.41", "0.00", "-9.41", "po_1", payout="po_1")
    assert [] == payout_breaks(loaded(tmp_path, BALANCE + charged + paid))
    short = paid.replace("-9.41", "-9.00")
    assert [("po_1", 900, 941)] == payout_breaks(loaded(tmp_path, BALANCE + charged + short))


def test_a_payout_that_failed_is_part_of_the_one_that_pays_it_again(tmp_path: Path) -> None:
    """`payout_reversal` is a line of the later payout."""
    rows = (balance("txn_1", "charge", "10.00", "0.00", "10.00", "ch_1", payout="po_1"),
            balance("txn_2", "payout", "-10.00", "0.00", "-10.00", "po_1", payout="po_1"),
            balance("txn_3", "payout_reversal", "10.00", "0.00", "10.00", "po_1", payout="po_2"),
            balance("txn_4", "payout", "-10.00", "0.00", "-10.00", "po_2", payout="po_2"))  # fmt: skip
    db = loaded(tmp_path, BALANCE + "".join(rows))
    assert [] == payout_breaks(db)
    assert [[]] == [one.problems() for one in bridges(db)]


def test_row_k_a_line_is_filled_in_by_a_later_export(tmp_path: Path) -> None:
    """First without its payout, then with it; an id that differs is refused."""
    bare = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1")
    named = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1", payout="po_1")
    paid = balance("txn_2", "payout", "-9.41", "0.00", "-9.41", "po_1", payout="po_1")
    db = loaded(tmp_path, BALANCE + bare, BALANCE + named + paid)
    assert [("po_1",), ("po_1",)] == lines(db, "payout_id")
    assert [] == payout_breaks(db)
    other = written(tmp_path, BALANCE + named.replace("po_1", "po_7"), "other.csv")
    with pytest.raises(InputRefused, match="line 2: txn_1 is of payout po_7, file0.csv says of po_1"):
        load(db, other)
    assert [("po_1",), ("po_1",)] == lines(db, "payout_id")


def test_row_k_an_older_export_takes_nothing_away(tmp_path: Path) -> None:
    """In the other order."""
    bare = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1")
    named = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1", payout="po_1", ref=OURS)
    db = loaded(tmp_path, BALANCE + named, BALANCE + bare)
    assert [("po_1", OURS)] == lines(db, "payout_id, ref")


# ---- decimals, times, currencies


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("given", [None, ","])
def test_a_decimal_comma_is_seen_or_given(delimiter: str, given: str | None, tmp_path: Path) -> None:
    """Quoted, or between other delimiters."""
    row = balance("txn_1", "charge", "10.00", "0.5", "9.5", "ch_1").split(",")
    cells = [f'"{cell.replace(".", ",")}"' if at in (4, 5, 6) else cell for at, cell in enumerate(row)]
    text = BALANCE.replace(",", delimiter) + delimiter.join(cells)
    db = loaded(tmp_path, text, reading=Reading(given))
    assert [("charge", "ch_1", 1000, 50, 950, "USD", None)] == lines(db)


@pytest.mark.parametrize(
    ("gross", "currency", "why"),
    [("1,234", "usd", "thousands or decimals"), ("1,234", "kwd", "thousands or decimals"),
     ("1,230", "usd", "thousands or decimals"), ("1.234,50", "usd", "not a decimal number"),
     ("12,3", "jpy", "thousands or decimals")],
)  # fmt: skip
def test_a_number_that_could_mean_two_things_is_refused(
    gross: str, currency: str, why: str, tmp_path: Path
) -> None:
    """A thousandfold amount is worse than a question."""
    text = balance("txn_1", "charge", f'"{gross}"', "0", f'"{gross}"', "ch_1", currency=currency)
    with pytest.raises(InputRefused, match=why):
        loaded(tmp_path, BALANCE + text)


def test_a_file_has_one_decimal_separator(tmp_path: Path) -> None:
    """Seen once, it holds; a given one, too."""
    point = balance("txn_1", "charge", "10.00", "0", "10.00", "ch_1")
    comma = balance("txn_2", "charge", '"10,00"', "0", '"10,00"', "ch_2")
    with pytest.raises(InputRefused, match="line 3: '10,00' has the other decimal separator"):
        loaded(tmp_path, BALANCE + point + comma)
    with pytest.raises(InputRefused, match="line 2: '10.00' has the other decimal separator"):
        loaded(tmp_path, BALANCE + point, reading=Reading(","))
    dinar = balance("txn_3", "charge", '"1,234"', "0", '"1,234"', "ch_3", currency="kwd")
    assert 1234 == lines(loaded(tmp_path, BALANCE + dinar, reading=Reading(",")))[0][2]


def test_times_without_a_zone_are_asked_for(tmp_path: Path) -> None:
    """`created` is in the report's zone, `created_utc` is not."""
    row = balance("txn_1", "charge", "10.00", "0.59", "9.41", "ch_1")
    local = BALANCE.replace("created_utc", "created")
    with pytest.raises(InputRefused, match="column created is in the report's own time zone"):
        loaded(tmp_path, local + row)
    berlin = lines(loaded(tmp_path, local + row, reading=Reading(zone=ZoneInfo("Europe/Berlin"))), "at")
    utc = lines(loaded(tmp_path, BALANCE + row), "at")
    assert 3_600_000 == utc[0][0] - berlin[0][0]
    listed = PAYOUTS.replace("effective_at_utc", "effective_at") + payout("po_1", "txn_9", "-9.00")
    with pytest.raises(InputRefused, match="column effective_at is in"):
        loaded(tmp_path, listed)


@pytest.mark.parametrize(
    ("code", "gross", "minor"),
    [("ang", "30.00", 3000), ("itl", "30", 30), ("usdc", "1.50", 150), ("qqq", "1.005", 100)],
)
def test_row_c_a_line_of_others_has_any_currency(code: str, gross: str, minor: int, tmp_path: Path) -> None:
    """Withdrawn, the gateway's own, unknown: read, no break; under our reference refused."""
    text = balance("txn_1", "charge", gross, "0", gross, "ch_1", currency=code)
    db = loaded(tmp_path, BALANCE + text)
    assert [(minor, code.upper())] == lines(db, "gross, currency")
    assert [] == found_in(db)
    with pytest.raises(InputRefused, match="none that is known"):
        loaded(tmp_path, BALANCE + text.replace(",\n", f",{OURS}\n"))


# ---- settled in another currency


def test_a_charge_that_is_settled_in_another_currency_is_followed(tmp_path: Path) -> None:
    """10.00 GBP charged, 12.60 USD settled: what the customer paid is compared; the bridge shows both."""
    paid = {"amount_minor": 1000, "currency": "GBP", "gateway": "stripe", "gateway_ref": "ch_1"}
    moved = Movement("ch_1", "charge", "succeeded", 1000, "GBP", OLD, OURS, "p0", "ann")

    def run(facing: str) -> tuple[list[dict[str, Any]], sqlite3.Connection]:
        rows = balance("txn_1", "charge", "12.60", "0.60", "12.00", "ch_1", facing=facing, payout="po_1")
        out = balance("txn_2", "payout", "-12.00", "0.00", "-12.00", "po_1", payout="po_1")
        db = filled([result("p0", **paid)], [moved], gateway="stripe")  # type: ignore[arg-type]
        load(db, written(tmp_path, BALANCE + rows + out))
        return found_in(db), db

    found, db = run("10.00,gbp")
    assert [] == found
    shown = {one.currency: one for one in bridges(db)}
    assert [[], []] == [one.problems() for one in shown.values()]
    assert (1000, 1260, 1200) == (
        shown["GBP"].amounts["converted_out"], shown["USD"].amounts["converted_in"],
        shown["USD"].amounts["paid_out"],
    )  # fmt: skip
    assert ["amount_mismatch"] == [one["class"] for one in run("11.00,gbp")[0]]
    assert ["amount_mismatch"] == [one["class"] for one in run(",")[0]]


TITLES = ('"CH","Transaction ID","Invoice ID","PayPal Reference ID","PayPal Reference ID Type",'
          '"Transaction Event Code","Transaction Initiation Date","Transaction Completion Date",'
          '"Transaction  Debit or Credit","Gross Transaction Amount","Gross Transaction Currency",'
          '"Fee Debit or Credit","Fee Amount","Fee Currency","Custom Field","Consumer ID"\n')  # fmt: skip


def paypal_row(name: str, code: str, way: str, gross: int, currency: str, fee: int = 0, *, ref: str = "",
               of: str = "") -> str:  # fmt: skip
    """A transaction of PayPal's settlement report."""
    at = "2026/02/14 02:00:00 -0800"
    return (f'"SB","{name}","{ref}","{of}","TXN","{code}","{at}","{at}","{way}",{gross},"{currency}","DR",'
            f'{fee},"{currency}","",""\n')  # fmt: skip


def paypal_report(*rows: str, totals: str, number: int = 1, ends: str | None = None) -> str:
    """A settlement report of one file, or one of several."""
    head = '"RH","2026/02/14 23:59:59 -0800","A","MERCHANT","009"\n' if number == 1 else ""
    section = '"SH","2026/02/14 00:00:00 -0800","2026/02/14 23:59:59 -0800","MERCHANT",""\n'
    body = "".join(rows)
    end = f'{totals.replace("XF", "RF")}"RC",{len(rows)}\n' if ends is None else ends
    return (f'{head}"FH",{number:02d}\n{section}{TITLES}{body}{totals.replace("XF", "SF")}"SC",{len(rows)}\n'
            f'{end}"FF",{len(rows)}\n')  # fmt: skip


def test_row_e_paypals_amounts_have_two_implied_digits_in_every_currency(tmp_path: Path) -> None:
    """15000 with fee 4300 is 150 yen with fee 43; half a yen is refused."""
    sale = paypal_row("T1", "T0006", "CR", 15000, "JPY", 4300)
    db = loaded(tmp_path, paypal_report(sale, totals='"XF","JPY",15000,0,0,4300\n'))
    assert [("charge", "T1", 150, 43, 107, "JPY", None)] == lines(db)
    half = paypal_row("T1", "T0006", "CR", 15050, "JPY")
    with pytest.raises(InputRefused, match="line 5: Gross Transaction Amount is 15050, hundredths of JPY"):
        loaded(tmp_path, paypal_report(half, totals='"XF","JPY",15050,0,0,0\n'))


def test_a_conversion_at_paypal_is_followed(tmp_path: Path) -> None:
    """T0200 and T0201 come in pairs under one name: both are kept, the bridge shows them apart."""
    rows = (paypal_row("S1", "T0006", "CR", 1000, "GBP", 41, ref=OURS),
            paypal_row("C1", "T0200", "DR", 959, "GBP", of="S1"),
            paypal_row("C1", "T0200", "CR", 1110, "USD", of="S1"),
            paypal_row("W1", "T0400", "DR", 1110, "USD"))  # fmt: skip
    text = paypal_report(*rows, totals='"XF","GBP",1000,959,0,41\n"XF","USD",1110,1110,0,0\n')
    paid = {"amount_minor": 1000, "currency": "GBP", "gateway": "paypal", "gateway_ref": "S1"}
    moved = Movement("S1", "charge", "succeeded", 1000, "GBP", OLD, OURS, "p0", "ann", fee_minor=41)
    db = filled([result("p0", **paid)], [moved], gateway="paypal")  # type: ignore[arg-type]
    load(db, written(tmp_path, text))
    assert [] == found_in(db)
    shown = {one.currency: one.amounts for one in bridges(db)}
    assert (-959, 1110) == (shown["GBP"]["conversions"], shown["USD"]["conversions"])
    assert (0, 1110) == (shown["GBP"]["lines_net"], shown["USD"]["paid_out"])


def test_the_totals_of_fees_are_read_in_either_order(tmp_path: Path) -> None:
    """A refund gives fees back: PayPal's specification has credits first, samples of others debits."""
    rows = (paypal_row("T1", "T0006", "CR", 1000, "USD", 59),
            paypal_row("R1", "T1107", "DR", 1000, "USD", 20, of="T1").replace('"DR",20', '"CR",20'))
    for fees in ("20,59", "59,20"):
        db = loaded(tmp_path, paypal_report(*rows, totals=f'"XF","USD",1000,1000,{fees}\n'))
        assert [59, -20] == [fee for (fee,) in lines(db, "fee")]
    with pytest.raises(InputRefused, match="fee credits are 21 USD, the rows' 20"):
        loaded(tmp_path, paypal_report(*rows, totals='"XF","USD",1000,1000,21,59\n'))


# ---- a report over several files


def split_report() -> tuple[str, str]:
    """Two files of one report: totals and count stand in the second, and count both."""
    first = paypal_report(paypal_row("T1", "T0006", "CR", 1000, "USD", 59),
                          totals='"XF","USD",1000,0,0,59\n', ends="")  # fmt: skip
    last = paypal_report(paypal_row("T2", "T0006", "CR", 500, "USD", 44), totals='"XF","USD",500,0,0,44\n',
                         number=2, ends='"RF","USD",1500,0,0,103\n"RC",2\n')  # fmt: skip
    return first, last


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_report_over_several_files_is_whole_with_all_of_them(
    order: tuple[int, int], tmp_path: Path
) -> None:
    """In any order within a run; the first one in an earlier run; the last one alone is refused."""
    texts = split_report()
    assert 2 == len(lines(loaded(tmp_path, *(texts[at] for at in order))))
    with pytest.raises(InputRefused, match="file0.csv: file 2 of a report that counts all its files"):
        loaded(tmp_path, texts[1])
    db = loaded(tmp_path, texts[0])
    load_all(db, [written(tmp_path, texts[1], "later.csv")])
    assert 2 == len(lines(db))


def test_a_later_file_may_go_on_amid_a_section(tmp_path: Path) -> None:
    """Without a section header of its own the day in the file's name tells whose part it is."""
    db = in_memory()
    names = ("STL-20260214.01.009.CSV", "STL-20260214.02.009.CSV")
    first, last = split_report()
    texts = first, last.replace(last[last.index('"SH"') : last.index('"CH"')], "")
    load_all(db, [written(tmp_path, text, name) for text, name in zip(texts, names, strict=True)])
    assert 2 == len(lines(db))


def test_a_lost_row_of_a_split_report_is_seen(tmp_path: Path) -> None:
    """By the totals of the last file; a first file that is cut is refused by itself."""
    first, last = split_report()
    other = first.replace("1000", "1100")
    with pytest.raises(InputRefused, match="the report's gross credits are 1500 USD, the rows' 1600"):
        loaded(tmp_path, other, last)
    with pytest.raises(InputRefused, match="it is cut off"):
        loaded(tmp_path, first.partition('"FF"')[0])


def test_what_waits_for_its_other_files_leaves_nothing_behind(tmp_path: Path) -> None:
    """The transaction of the run goes on as if it had not been given."""
    db = in_memory()
    with pytest.raises(PartsMissing):
        load(db, written(tmp_path, split_report()[1]))
    assert ([], []) == (lines(db), db.execute("SELECT * FROM kept.files").fetchall())


# ---- what an earlier release kept


VERSION_1 = """
    CREATE TABLE files (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
        format TEXT NOT NULL, lines INTEGER NOT NULL);
    CREATE TABLE lines (id INTEGER PRIMARY KEY, file INTEGER NOT NULL, place INTEGER NOT NULL,
        gateway TEXT NOT NULL, line_id TEXT, kind TEXT NOT NULL, gateway_ref TEXT, charge_ref TEXT,
        ref TEXT, gross INTEGER NOT NULL, fee INTEGER NOT NULL, net INTEGER NOT NULL,
        currency TEXT NOT NULL, payout_id TEXT, at INTEGER NOT NULL);
    CREATE UNIQUE INDEX line_names ON lines (gateway, line_id) WHERE line_id IS NOT NULL;
    INSERT INTO files VALUES (1, 'h', 'f.csv', 'paypal', 2);
    PRAGMA user_version = 1;"""


def test_lines_of_an_earlier_release_are_brought_up_to_date(tmp_path: Path) -> None:
    """Others' references, PayPal's yen, manual payouts: as if they had been loaded today."""
    old = sqlite3.connect(tmp_path / KEPT_NAME)
    old.executescript(VERSION_1)
    rows = [(1, "paypal", "T1:T0006", "charge", "T1", "WC-123", 15000, 4300, 10700, "JPY", None),
            (2, "paypal", "C1:T0200", "adjustment", None, OURS, 100, 0, 100, "USD", None),
            (3, "stripe", "txn_1", "payout", None, None, 500, 0, 500, "USD", "po_manual")]  # fmt: skip
    old.executemany(
        "INSERT INTO lines (id, file, place, gateway, line_id, kind, gateway_ref, ref, gross, fee, net,"
        " currency, payout_id, at) VALUES (?, 1, 1, ?,?,?,?,?,?,?,?,?,?, 0)", rows
    )  # fmt: skip
    old.commit()
    old.close()
    for _ in range(2):
        with opened(tmp_path) as db:
            found = lines(db, "line_id, ref, gross, fee, gateway_ref, payout_id")
    assert [("T1:T0006", None, 150, 43, "T1", None), ("C1:T0200:USD", OURS, 100, 0, None, None),
            ("txn_1", None, 500, 0, "po_manual", None)] == found  # fmt: skip


def test_lines_of_an_earlier_release_are_read_again_where_an_export_overlaps(tmp_path: Path) -> None:
    """Their kind was another one: no difference, unless the amount is one; the bridge ends at the payouts."""
    old = sqlite3.connect(tmp_path / KEPT_NAME)
    old.executescript(VERSION_1.replace("'paypal'", "'stripe'"))
    kept = [("txn_1", "charge", "ch_1", 1000, 0, 1000, "po_1"),
            ("txn_2", "payout", None, 1000, 0, 1000, "po_1"),
            ("txn_3", "payout", None, -1000, 0, -1000, "po_2"),
            ("txn_4", "payout", None, 1000, 0, 1000, "po_2"),
            ("txn_5", "charge", "ch_5", 500, 0, 500, None),
            ("txn_6", "adjustment", None, -100, 0, -100, None),
            ("txn_7", "payout", None, 300, -5, 305, "po_i")]  # fmt: skip
    old.executemany(
        "INSERT INTO lines (file, place, gateway, currency, at, line_id, kind, gateway_ref, gross, fee, net,"
        " payout_id) VALUES (1, 1, 'stripe', 'USD', 0, ?,?,?,?,?,?,?)", kept
    )  # fmt: skip
    old.commit()
    old.close()
    rows = (balance("txn_1", "charge", "10.00", "0.00", "10.00", "ch_1", payout="po_1"),
            balance("txn_2", "payout", "-10.00", "0.00", "-10.00", "po_1", payout="po_1"),
            balance("txn_3", "payout_reversal", "10.00", "0.00", "10.00", "po_1", payout="po_2"),
            balance("txn_4", "payout", "-10.00", "0.00", "-10.00", "po_2", payout="po_2"),
            balance("txn_5", "charge", "5.00", "0.00", "5.00", "ch_5"),
            balance("txn_6", "partial_capture_reversal", "-1.00", "0.00", "-1.00", "ch_5"),
            balance("txn_7", "payout", "-3.00", "0.05", "-3.05", "po_i"))  # fmt: skip
    shown = "kind, gross, fee, net, payout_id"
    now = lines(loaded(tmp_path, BALANCE + "".join(rows)), shown)
    with opened(tmp_path) as db:
        load(db, written(tmp_path, BALANCE + "".join(rows), "again.csv"))
        assert sorted(now, key=str) == sorted(lines(db, shown), key=str)
        assert [] == payout_breaks(db)
        db.row_factory = None
        assert [[]] == [one.problems() for one in bridges(db)]
    with opened(tmp_path) as db, pytest.raises(InputRefused, match="txn_5 differs from what f.csv says"):
        load(db, written(tmp_path, BALANCE + rows[4].replace("5.00", "6.00"), "other.csv"))


def test_a_pending_refund_may_be_in_the_file_already() -> None:
    """Its money has left the balance, its outcome is open: no break yet."""
    moved = [Movement("ch_p0", "charge", "succeeded", 100, "EUR", OLD, OURS, "p0", "ann"),
             Movement("re_1", "refund", "pending", 40, "EUR", AS_OF, charge_ref="ch_p0")]  # fmt: skip
    line = Line("refund", "simulated", "t1", "re_1", "ch_p0", None, -40, 0, -40, "EUR", None, AS_OF)
    assert [] == reconciled([result("p0")], moved, [line])[0]
