"""Settlement files at their edges: numbers that mean two things, empty days, fees apart, many parts."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.settlement_lines import Reading
from streamsocial_billing.reconciliation.bridge import bridges
from streamsocial_billing.reconciliation.settlement.importing import load_all
from streamsocial_billing.reconciliation.store import in_memory

STRIPE = "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id\n"
TITLES = ('"CH","Transaction ID","Invoice ID","PayPal Reference ID","Transaction Event Code",'
          '"Transaction Initiation Date","Transaction  Debit or Credit","Gross Transaction Amount",'
          '"Gross Transaction Currency","Fee Debit or Credit","Fee Amount","Fee Currency"\n')  # fmt: skip


def stripe(gross: str, currency: str = "usd", name: str = "txn_1") -> str:
    """A charge without a fee."""
    return f'{name},2026-02-14 10:00:00,{currency},"{gross}",0,"{gross}",charge,ch_{name}\n'


def loaded(folder: Path, *contents: str | bytes, reading: Reading | None = None) -> Any:
    """A store with these files."""
    db = in_memory()
    paths = [folder / f"file{at}.csv" for at in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    load_all(db, paths, reading)
    return db


def kept(db: Any) -> list[tuple[Any, ...]]:
    """Kind, gross, fee, net, currency of each line."""
    return list(db.execute("SELECT kind, gross, fee, net, currency FROM kept.lines ORDER BY id"))


@pytest.mark.parametrize(
    ("gross", "currency"),
    [("1.000", "jpy"), ("10.000", "jpy"), ("1.230", "usd"), ("-1.000", "xof"), ("10.000", "isk"),
     ("100.000", "eur"), ("1,000", "jpy"), ("1,230", "usd")],
)  # fmt: skip
def test_what_could_be_thousands_is_asked_for(gross: str, currency: str, tmp_path: Path) -> None:
    """1.000 yen are one yen or a thousand; once the separator is given or seen it means one thing."""
    with pytest.raises(InputRefused, match="thousands or decimals"):
        loaded(tmp_path, STRIPE + stripe(gross, currency))
    if "." in gross:
        said = kept(loaded(tmp_path, STRIPE + stripe(gross, currency), reading=Reading(".")))
        seen = kept(loaded(tmp_path, STRIPE + stripe("5.50", name="txn_0") + stripe(gross, currency)))
        assert said == seen[1:]
        with pytest.raises(InputRefused, match="the other decimal separator"):
            loaded(tmp_path, STRIPE + stripe(gross, currency), reading=Reading(","))


@pytest.mark.parametrize(
    ("gross", "currency", "minor"),
    [("1.234", "kwd", 1234), ("1.000", "bhd", 1000), ("0.000", "usd", 0), ("-0.00", "usd", 0),
     ("1500.00", "jpy", 1500), ("1234.500", "eur", 123_450), ("+5.00", "bgn", 500), ("5", "vef", 500)],
)  # fmt: skip
def test_what_cannot_be_thousands_is_read(gross: str, currency: str, minor: int, tmp_path: Path) -> None:
    """Three decimals, a zero in front, four digits in front."""
    assert [minor] == [line[1] for line in kept(loaded(tmp_path, STRIPE + stripe(gross, currency)))]


@pytest.mark.parametrize(
    "gross", ["1.234,56", "1,234.56", "1e3", "", " 5.00", "\u0665", "(5.00)", "$5", "1 000"]
)
def test_what_is_no_number_is_refused_with_its_line(gross: str, tmp_path: Path) -> None:
    """Nothing is guessed."""
    with pytest.raises(InputRefused, match="file0.csv: line 2: gross is"):
        loaded(tmp_path, STRIPE + stripe(gross))


# ---- PayPal's reports


def paypal(name: str, code: str, way: str, gross: int, currency: str = "USD", fee: int = 0,
           fee_currency: str = "") -> str:  # fmt: skip
    """A transaction."""
    at = "2026/02/14 02:00:00 -0800"
    return (f'"SB","{name}","","","{code}","{at}","{way}",{gross},"{currency}","DR",{fee},'
            f'"{fee_currency or currency}"\n')  # fmt: skip


def report(rows: list[str], totals: dict[str, tuple[int, ...]], *, number: int = 1,
           everything: tuple[int, dict[str, tuple[int, ...]]] | None = None) -> str:  # fmt: skip
    """One file; `everything`: count and totals of the whole report, in the last file alone."""

    def sums(kind: str, by: dict[str, tuple[int, ...]]) -> str:
        return "".join(f'"{kind}","{code}",{",".join(map(str, by[code]))}\n' for code in by)

    head = '"RH","2026/02/14 23:59:59 -0800","A","M","009"\n' if number == 1 else ""
    end = "" if everything is None else f'{sums("RF", everything[1])}"RC",{everything[0]}\n'
    return (f'{head}"FH",{number:02d}\n"SH","2026/02/14","2026/02/14","M",""\n{TITLES}{"".join(rows)}'
            f'{sums("SF", totals)}"SC",{len(rows)}\n{end}"FF",{len(rows)}\n')  # fmt: skip


def whole(rows: list[str], totals: dict[str, tuple[int, ...]]) -> str:
    """A report in one file."""
    return report(rows, totals, everything=(len(rows), totals))


def test_a_day_on_which_nothing_happened_is_a_report_too(tmp_path: Path) -> None:
    """Its count says 0; a Stripe export without lines says nothing, and is refused."""
    paid = whole([paypal("T1", "T0006", "CR", 100)], {"USD": (100, 0, 0, 0)})
    assert [("charge", 100, 0, 100, "USD")] == kept(loaded(tmp_path, whole([], {}), paid))
    with pytest.raises(InputRefused, match="the file has no lines"):
        loaded(tmp_path, STRIPE)
    with pytest.raises(InputRefused, match="the report counts 1 rows, it has 0"):
        loaded(tmp_path, report([], {}, everything=(1, {})))


def test_a_fee_in_another_currency_is_a_line_of_its_own(tmp_path: Path) -> None:
    """0.59 EUR are not 0.59 USD; the totals of each currency hold, and so do both bridges."""
    row = paypal("T1", "T0006", "CR", 1000, "USD", 59, "EUR")
    db = loaded(tmp_path, whole([row], {"USD": (1000, 0, 0, 0), "EUR": (0, 0, 0, 59)}))
    assert [("charge", 1000, 0, 1000, "USD"), ("adjustment", 0, 59, -59, "EUR")] == kept(db)
    assert [[], []] == [one.problems() for one in bridges(db)]
    with pytest.raises(InputRefused, match="fee debits"):
        loaded(tmp_path, whole([row], {"USD": (1000, 0, 0, 59)}))


@pytest.mark.parametrize("files", [2, 3, 4, 5])
def test_a_report_over_many_files(files: int, tmp_path: Path) -> None:
    """In any order, each once or twice; one missing before the last one is refused."""
    parts = [[paypal(f"T{part}{at}", "T0006", "CR", 100 * part + at) for at in range(part)]
             for part in range(1, files + 1)]  # fmt: skip
    sums = [sum(100 * part + at for at in range(part)) for part in range(1, files + 1)]
    rows = sum(map(len, parts))
    texts = [report(part, {"USD": (total, 0, 0, 0)}, number=at,
                    everything=(rows, {"USD": (sum(sums), 0, 0, 0)}) if at == files else None)
             for at, (part, total) in enumerate(zip(parts, sums, strict=True), 1)]  # fmt: skip
    for order in list(permutations(texts))[:24]:
        for given in (order, (*order, *order)):
            assert (rows, sum(sums)) == (len(kept(loaded(tmp_path, *given))),
                                         sum(line[1] for line in kept(loaded(tmp_path, *given))))  # fmt: skip
    for missing in texts[:-1]:
        with pytest.raises(InputRefused, match=f"file {files} of a report that counts all its files"):
            loaded(tmp_path, *(text for text in texts if text != missing))
    counts = Counter(line[0] for line in kept(loaded(tmp_path, *texts)))
    assert Counter(charge=rows) == counts


@pytest.mark.parametrize(("amount", "code"), [("x", "eur"), ("1,234", "eur"), ("5.00", "u$"), ("5", "")])
def test_what_a_customer_of_others_paid_need_not_be_readable(amount: str, code: str, tmp_path: Path) -> None:
    """Whose line it is nobody knows yet: without our reference it refuses no file."""
    header = STRIPE.replace("\n", ",customer_facing_amount,customer_facing_currency\n")
    line = stripe("6.00").replace("\n", f',"{amount}",{code}\n')
    assert [("charge", 600, 0, 600, "USD")] == kept(loaded(tmp_path, header + line))
