"""`reconcile` over whatever gateways list and files hold.

Operations: rows of Stripe's and PayPal's lists that are right but for some fields, ours or of others; files
of every format that are right but for some cells, a cut, a line twice, other bytes; results of ours.
Properties:
1. A run ends with 0 or 1 and a report, or with one line that says what is wrong; never with a traceback.
2. Every bridge that it shows adds up.
"""

from __future__ import annotations

import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.listed_books import ListedBooks, ListedPayPal, ListedStripe
from support.planted_books import AS_OF, DAY
from support.small_books import OLD, result

from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.settlement_lines import Reading
from streamsocial_billing.reconciliation.command import run_command
from streamsocial_billing.reconciliation.run import Wish
from streamsocial_billing.reconciliation.settlement.simple import HEADER
from streamsocial_billing.settings import Settings

KEYS = [gateway_key_of("ann", kind, name) for kind in ("charge", "refund") for name in ("p0", "p1")]
WORDS = [{"ref": key, "user_id": "ann", "payment_id": f"p{at % 2}"} for at, key in enumerate(KEYS)]
JUNK: list[Any] = [None, "", "x", "0", -1, 0, 7, 2**70, 1e300, True, [], {}, {"a": [1]}, "\u20ac" * 300,
                   "ss1_x", "<b>", "=1+1", "a\nb", "USD", "usd", "\0", "\ud800", "2026-02-14T10:00:00",
                   -5.5]  # fmt: skip
"""What no gateway should say, but might."""
REPORTS = ("breaks.csv", "report.html", "summary.json")


def spoilt(draw: st.DrawFn, row: dict[str, Any]) -> dict[str, Any]:
    """The row with up to two fields that are something else, or are missing."""
    changed = dict(row)
    for name in draw(st.lists(st.sampled_from(sorted(row)), max_size=2)):
        if draw(st.booleans()):
            changed[name] = draw(st.sampled_from(JUNK))
        else:
            changed.pop(name, None)
    return changed


@st.composite
def stripe_rows(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Charges, refunds, disputes."""
    rows: dict[str, list[Any]] = {"charge": [], "refund": [], "dispute": []}
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(sorted(rows)))
        moves = draw(st.lists(st.sampled_from((-500, 500, 200, -200)), max_size=3))
        row = {
            "id": f"{kind}_{number}", "amount": draw(st.sampled_from((100, 500, 0))), "created": OLD // 1000,
            "currency": draw(st.sampled_from(("eur", "jpy", "ang", "zzz"))), "captured": True,
            "status": draw(st.sampled_from(("succeeded", "failed", "pending", "lost", "won",
                                            "warning_needs_response", "of_tomorrow"))),
            "metadata": draw(st.sampled_from((*WORDS, {}, {"ref": "WC-1"}))),
            "charge": draw(st.sampled_from(("charge_0", "ch_p0", None, {"id": "charge_1"}))),
            "balance_transactions": [{"amount": one, "currency": "eur", "fee": 0} for one in moves],
            "balance_transaction": draw(st.sampled_from(("txn_1", None, {"fee": 3, "currency": "eur"}))),
            "failure_balance_transaction": draw(st.sampled_from((None, "txn_2"))),
        }  # fmt: skip
        rows[kind].append(spoilt(draw, row))
    return rows


@st.composite
def paypal_rows(draw: st.DrawFn) -> list[Any]:
    """Rows of the transaction search."""
    rows: list[Any] = []
    at = datetime.fromtimestamp(OLD / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
    for number in range(draw(st.integers(0, 4))):
        code = draw(st.sampled_from(("T0006", "T0000", "T1107", "T1106", "T1201", "T1202", "T0400", "T0200")))
        money = {"currency_code": draw(st.sampled_from(("EUR", "JPY", "ANG", "QQQ"))),
                 "value": draw(st.sampled_from(("5", "-5.00", "1.005", "0", "x")))}  # fmt: skip
        info = {
            "transaction_id": f"T{number}", "transaction_event_code": code, "transaction_status": "S",
            "transaction_initiation_date": at, "transaction_amount": spoilt(draw, money),
            "fee_amount": {"currency_code": "EUR", "value": "-0.1"}, "paypal_reference_id": "T0",
            "invoice_id": draw(st.sampled_from((*KEYS, None, "WC-1"))),
            "custom_field": draw(st.sampled_from((None, f"{KEYS[0]}:ann:p0", "ann:p0", ":::"))),
        }  # fmt: skip
        rows.append(draw(st.sampled_from(({"transaction_info": spoilt(draw, info)}, 7, None, {}))))
    return rows


CELLS = ["", "x", "0", "-1", "1,5", "1.234", '"', "9" * 30, "2026-02-14", "ss1_x", "usd", "JPY", "QQQ", "RF",
         "T0006", "trailer", "payout", "\0", "\u20ac", ";", "-"]  # fmt: skip
AT = "2026-02-14 10:00:00"
STRIPE = [
    ["balance_transaction_id", "created_utc", "currency", "gross", "fee", "net", "reporting_category",
     "source_id", "automatic_payout_id", "customer_facing_amount", "customer_facing_currency",
     "payment_metadata[ref]"],
    ["txn_1", AT, "eur", "5.00", "0.10", "4.90", "charge", "charge_0", "po_1", "", "", KEYS[0]],
    ["txn_2", AT, "usd", "6.00", "0.10", "5.90", "charge", "charge_1", "", "5.00", "eur", ""],
    ["txn_3", AT, "eur", "-4.90", "0.00", "-4.90", "payout", "po_1", "po_1", "", "", ""],
    ["txn_4", AT, "ang", "3.00", "0.00", "3.00", "refund_failure", "re_9", "", "", "", ""],
]  # fmt: skip
PAYPAL = [
    ["RH", "2026/02/14 23:59:59 +0000", "A", "M", "009"], ["FH", "1"], ["SH", "a", "b", "M", ""],
    ["CH", "Transaction ID", "Invoice ID", "PayPal Reference ID", "Transaction Event Code",
     "Transaction Initiation Date", "Transaction Debit or Credit", "Gross Transaction Amount",
     "Gross Transaction Currency", "Fee Debit or Credit", "Fee Amount"],
    ["SB", "T0", KEYS[0], "", "T0006", "2026/02/14 10:00:00 +0000", "CR", "500", "JPY", "DR", "100"],
    ["SB", "T1", "WC-1", "T0", "T1202", "2026/02/14 10:00:00 +0000", "CR", "700", "JPY", "", ""],
    ["SF", "JPY", "1200", "0", "0", "100"], ["SC", "2"], ["RF", "JPY", "1200", "0", "0", "100"], ["RC", "2"],
    ["FF", "2"],
]  # fmt: skip
SIMPLE = [
    list(HEADER),
    ["charge", "stripe", "charge_0", "", KEYS[0], "5.00", "0.10", "4.90", "EUR", "po_1", "2026-02-14"],
    ["payout", "stripe", "", "", "", "4.90", "0", "4.90", "EUR", "po_1", "2026-02-14"],
    ["trailer", "", "1", "", "", "", "", "4.90", "EUR", "", ""],
]  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file that is right but for something, or no file at all."""
    rows = [list(row) for row in draw(st.sampled_from((STRIPE, PAYPAL, SIMPLE)))]
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(CELLS))
    if draw(st.integers(0, 4)) == 0:
        rows.insert(draw(st.integers(0, len(rows))), draw(st.sampled_from(rows)))
    if draw(st.integers(0, 4)) == 0:
        rows.pop(draw(st.integers(0, len(rows) - 1)))
    delimiter = draw(st.sampled_from((",", ",", ";", "\t")))
    quoted = [[f'"{cell}"' if "," in cell else cell for cell in row] for row in rows]
    data = "".join(delimiter.join(row) + "\n" for row in quoted).encode()
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=8))
    return data


booked = st.lists(
    st.tuples(
        st.sampled_from(("p0", "p1")), st.sampled_from(("succeeded", "declined", "unknown")),
        st.sampled_from(("stripe", "paypal")), st.sampled_from(("charge_0", "T0", "ch_p0", None)),
        st.sampled_from((None, "dispute", "dispute_won", "refund_failed")),
    ), max_size=3,
)  # fmt: skip


def results_of(rows: list[tuple[str, str, str, str | None, str | None]]) -> list[bytes]:
    """Results of charges, and of what the gateway made."""
    made = []
    for at, (name, status, gateway, ref, reason) in enumerate(rows):
        more: dict[str, Any] = {"gateway": gateway, "gateway_ref": ref, "amount_minor": 500}
        if reason is not None:
            action = "refund" if reason == "dispute" else "charge"
            more |= {"origin": "external", "action": action, "refund_of": "p0", "reason": reason}
            name, status = f"x1_{at}", "succeeded"
        made.append(result(name, status, **more))
    return made


def ended(
    results: list[bytes], gateways: dict[str, Gateway], contents: list[bytes], decimal: str | None
) -> int:
    """The exit code of one run; checks what comes with it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{at}.csv" for at in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        out, told, err = Path(folder) / "out", io.StringIO(), io.StringIO()
        wish = Wish(output=out, files=paths, dry_run=True, as_of=AS_OF, reading=Reading(decimal))
        try:
            code = run_command(Settings(), wish, told, err, gateways, ListedBooks(results))
        except InputRefused as why:
            assert 1 == len(str(why).splitlines()), why
            assert not (out / "summary.json").exists()
            return 2
        assert "do not add up" not in told.getvalue() and "does not add up" not in told.getvalue()
        assert set(REPORTS) <= {path.name for path in out.iterdir()}
        summary = orjson.loads((out / "summary.json").read_bytes())
        assert (code == 0) == summary["clean"]
        return code


Drawn = tuple[list[Any], dict[str, list[Any]], list[Any], list[bytes], str | None]
drawn = st.tuples(
    booked, stripe_rows(), paypal_rows(), st.lists(files(), max_size=2), st.sampled_from((None, ".", ","))
)


def run(made: Drawn) -> None:
    """Properties 1 and 2."""
    rows, stripe, paypal, contents, decimal = made
    gateways: dict[str, Gateway] = {"stripe": ListedStripe(stripe), "paypal": ListedPayPal(paypal)}
    assert ended(results_of(rows), gateways, contents, decimal) in (0, 1, 2)


@pytest.mark.timeout(600)
@given(drawn)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_run_ends_with_a_report_or_a_line(made: Drawn) -> None:
    """Whatever lists and files hold."""
    run(made)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(drawn)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_ten_thousand_runs_end_with_a_report_or_a_line(made: Drawn) -> None:
    """The same for longer."""
    run(made)


def test_what_is_refused_is_one_line() -> None:
    """Whatever it quotes from outside."""
    assert "a b" == str(InputRefused("a\nb"))
    assert 1 == len(str(InputRefused("x\u2028y\r\nz")).splitlines())


def test_what_is_drawn_is_right_if_nothing_is_spoilt() -> None:
    """Else the properties would be about refusals alone."""
    for rows in (STRIPE, PAYPAL, SIMPLE):
        content = "".join(",".join(row) + "\n" for row in rows).encode()
        gateways: dict[str, Gateway] = {"stripe": ListedStripe({}), "paypal": ListedPayPal([])}
        assert ended([], gateways, [content], None) in (0, 1)
    assert OLD < AS_OF - DAY
