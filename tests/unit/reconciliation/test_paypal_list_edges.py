"""PayPal's transaction search at its edges: numbers, missing fields, codes, reversals cut off."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest
from support.small_books import OLD, classes, reconciled, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.base import ListFailed
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.paypal.search import movement_of
from streamsocial_billing.gateways.settlement_lines import Line

KEY = gateway_key_of("ann", "charge", "p0")
PAID: dict[str, Any] = {"amount_minor": 2500, "gateway": "paypal", "gateway_ref": "CAP1"}
TAKEN: dict[str, Any] = {
    "origin": "external", "gateway": "paypal", "gateway_ref": "REV1", "amount_minor": 2500, "refund_of": "p0"
}  # fmt: skip


def row(code: str, name: str, value: object, currency: str = "EUR", **more: Any) -> Movement | None:
    """A row of the search; a field given as None is null there."""
    at = datetime.fromtimestamp(OLD / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
    info = {"transaction_id": name, "transaction_event_code": code, "transaction_status": "S",
            "transaction_initiation_date": at,
            "transaction_amount": {"currency_code": currency, "value": value}}  # fmt: skip
    return movement_of({"transaction_info": info | more})


def breaks(*rows: Movement | None, results: tuple[bytes, ...] = (), lines: tuple[Line, ...] = ()) -> Any:
    """Those of a run over our charge CAP1 of 25.00 EUR with these."""
    charge = row("T0006", "CAP1", "25.00", invoice_id=KEY)
    known = [one for one in (charge, *rows) if one is not None]
    return reconciled([result("p0", **PAID), *results], known, lines, gateway="paypal")[0]


def summed(found: list[dict[str, Any]]) -> list[tuple[str, str, int, bool]]:
    """Class, reference, money at stake, whether the run repairs it."""
    return [(one["class"], one["gateway_ref"], one["at_stake_minor"], one["action"].startswith("repair: "))
            for one in found]  # fmt: skip


# ---- numbers and fields


@pytest.mark.parametrize(
    "value",
    ["1e3", "2.5e1", "2_5.00", " 25.00", "25.00 ", "+25", "\u0662\u0665", "NaN", "Infinity", "", "-",
     "1,234.56", "1.234,56", "25.001", "1" * 25, 25.5, True, None, []],
)  # fmt: skip
def test_what_is_no_amount_of_the_api_is_not_guessed(value: object) -> None:
    """Of ours the list is refused; of others it is counted as unreadable."""
    with pytest.raises(ListFailed, match="CAP9"):
        row("T0006", "CAP9", value, invoice_id=KEY)
    other = row("T0006", "CAP9", value)
    assert other is not None and ("unreadable", 0) == (other.status, other.amount_minor)


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [("25", "EUR", 2500), ("25.5", "EUR", 2550), (".5", "EUR", 50), ("25.000", "EUR", 2500),
     (25, "EUR", 2500), ("150", "JPY", 150), ("150.00", "JPY", 150), ("1.234", "kwd", 1234),
     ("150", "HUF", 15_000), ("3", "TWD", 300), ("3", "XOF", 3), ("3.00", "BGN", 300), ("3", "VEF", 300),
     ("3", "ZWL", 300), ("3", "ITL", 3), ("3", "QQQ", 300)],
)  # fmt: skip
def test_amounts_in_any_currency(value: object, currency: str, minor: int) -> None:
    """0, 2, 3 decimals, withdrawn ones, codes that nobody knows."""
    one = row("T0006", "X1", value, currency)
    assert one is not None and ("succeeded", minor) == (one.status, one.amount_minor)


@pytest.mark.parametrize("code", ["T0200", "T0400", "T0600", "T1110", "T1302", "T1503", "T2101", "T9900"])
@pytest.mark.parametrize("gone", ["transaction_amount", "transaction_status", "transaction_id"])
def test_a_row_that_is_no_movement_need_not_be_readable(code: str, gone: str) -> None:
    """Holds, authorizations, payouts, with our reference."""
    missing: dict[str, Any] = {gone: None}
    assert row(code, "X1", "5.00", invoice_id=KEY, **missing) is None


def test_what_may_be_missing_may_be_null() -> None:
    """The fee is optional; the code of a row of ours is not."""
    one = row("T0006", "CAP1", "25.00", invoice_id=KEY, custom_field=None, fee_amount=None)
    assert one is not None and one.fee_minor is None
    with pytest.raises(ListFailed, match="CAP9"):
        row("T0006", "CAP9", "25.00", invoice_id=KEY, transaction_event_code=None)


@pytest.mark.parametrize("broken", ["\ud800", "x\udfff"])
def test_half_a_character_ends_a_run_with_a_line(broken: str) -> None:
    """JSON may hold half a surrogate pair; nothing of it can be written."""
    with pytest.raises(ListFailed):
        row("T0006", "CAP9", "5", broken, invoice_id=KEY)
    with pytest.raises(ListFailed):
        row("T1107", "REF9", "-5", invoice_id=KEY, paypal_reference_id=broken)
    other = row("T0006", broken, "5", broken)
    assert other is not None and f"{other.gateway_ref}{other.currency}".encode()


@pytest.mark.parametrize("code", ["T0006", "T1106", "T1107", "T1201", "T1202"])
def test_what_is_of_a_charge_of_ours_and_not_readable_ends_the_run(code: str) -> None:
    """It names CAP1 alone; a sale of others that does is counted."""
    of_ours = row(code, "X1", "x", paypal_reference_id="CAP1")
    if code == "T0006":
        assert [] == breaks(of_ours)
        return
    with pytest.raises(InputRefused, match="of our charge CAP1"):
        breaks(of_ours)


NO_MOVEMENT = ("T0100 T0106 T0200 T0201 T0202 T0300 T0303 T0400 T0403 T0600 T0800 T1100 T1101 T1105 T1108"
               " T1109 T1110 T1111 T1116 T1200 T1203 T1205 T1300 T1301 T1302 T1500 T1501 T1503 T2101 T2102"
               " T2103 T2104 T9900").split()  # fmt: skip


@pytest.mark.parametrize("code", NO_MOVEMENT)
@pytest.mark.parametrize("value", ["7.00", "-7.00"])
def test_a_code_that_moves_no_payment_is_never_booked(code: str, value: str) -> None:
    """Though it bears the reference of a charge."""
    assert [] == breaks(row(code, "X1", value, invoice_id=KEY, paypal_reference_id="CAP1"))


# ---- statuses, reversals


@pytest.mark.parametrize("code", ["T1107", "T1106", "T1201"])
@pytest.mark.parametrize("status", ["P", "D", "V"])
def test_what_is_pending_denied_or_reversed_took_nothing(code: str, status: str) -> None:
    """A refund or a reversal that was itself reversed is back: nothing is booked."""
    assert [] == breaks(row(code, "X1", "-7.00", paypal_reference_id="CAP1", transaction_status=status))


@pytest.mark.parametrize("code", ["T1106", "T1201"])
@pytest.mark.parametrize(
    ("taken_by", "won_by"),
    [({"paypal_reference_id": "CAP1"}, {"paypal_reference_id": "REV1"}),
     ({"paypal_reference_id": "CAP1"}, {"paypal_reference_id": "CAP1"}),
     ({"paypal_reference_id": "CAP1"}, {"invoice_id": KEY}), ({"invoice_id": KEY}, {"invoice_id": KEY}),
     ({"custom_field": f"{KEY}:ann:p0"}, {"paypal_reference_id": "CAP1"})],
)  # fmt: skip
def test_a_reversal_finds_its_end_by_whatever_names_the_charge(
    code: str, taken_by: dict[str, str], won_by: dict[str, str]
) -> None:
    """By the dispute, by the charge, by the charge's reference: what is not back is lost."""
    taken = row(code, "REV1", "-25.00", **taken_by)
    assert [] == breaks(taken, row("T1202", "BACK1", "25.00", **won_by))
    booked = (result("x1_a", reason="dispute", action="refund", **TAKEN),)
    found = breaks(taken, row("T1202", "BACK1", "25.00", **won_by), results=booked)
    assert [("dispute_unbooked", "REV1", 2500, True)] == summed(found)
    found = breaks(taken, row("T1202", "BACK1", "10.00", **won_by))
    assert [("dispute_unbooked", "REV1", 1500, True)] == summed(found)


@pytest.mark.parametrize("named", ["REV1", "CAP1"])
def test_the_end_of_a_reversal_that_the_list_does_not_have_is_said(named: str) -> None:
    """The list begins later: a person looks; nothing is open once our books have it."""
    back = row("T1202", "BACK1", "25.00", paypal_reference_id=named, invoice_id=KEY)
    assert ("dispute_unbooked", "BACK1", 2500, False) in summed(breaks(back))
    taken = result("x1_a", reason="dispute", action="refund", **TAKEN)
    assert ("dispute_unbooked", "BACK1") in classes(breaks(back, results=(taken,)))
    won = result("x1_b", reason="dispute_won", action="charge", **TAKEN)
    lines = (Line("dispute", "paypal", "a", "REV1", "CAP1", None, -2500, 0, -2500, "EUR", None, OLD),
             Line("dispute", "paypal", "b", "BACK1", named, None, 2500, 0, 2500, "EUR", None, OLD),
             Line("charge", "paypal", "c", "CAP1", None, None, 2500, 0, 2500, "EUR", None, OLD))  # fmt: skip
    assert [] == breaks(back, results=(taken, won))
    assert [] == breaks(back, results=(taken, won), lines=lines)
    assert [] == reconciled([], [one for one in (row("T1202", "Z", "5", paypal_reference_id="Y"),) if one],
                            gateway="paypal")[0]  # fmt: skip


@pytest.mark.parametrize("amounts", [("10.00", "15.00"), ("10.00", "10.00"), ("15.00", "10.00")])
@pytest.mark.parametrize(
    "names", [("REV1", "REV2"), ("REV1", "CAP1"), ("CAP1", "REV2"), ("CAP1", "CAP1"), ("REV2", "CAP1")]
)
def test_two_reversals_of_a_charge_are_given_back_each(
    amounts: tuple[str, str], names: tuple[str, str]
) -> None:
    """Whether their ends name them or the charge, in any order of the rows: neither is lost."""
    if names == ("REV2", "CAP1"):
        ends = [("B1", amounts[1], "REV2"), ("B2", amounts[0], "CAP1")]
    else:
        ends = [("B1", amounts[0], names[0]), ("B2", amounts[1], names[1])]
    rows = [row("T1201", "REV1", f"-{amounts[0]}", paypal_reference_id="CAP1"),
            row("T1106", "REV2", f"-{amounts[1]}", paypal_reference_id="CAP1"),
            *(row("T1202", name, value, paypal_reference_id=of) for name, value, of in ends)]  # fmt: skip
    for order in permutations(rows):
        assert [] == breaks(*order)
    found = breaks(*rows[:3])
    assert 1 == len(found)
    assert {"dispute_unbooked"} == {one["class"] for one in found}
