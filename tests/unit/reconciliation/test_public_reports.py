"""What happened to others, row by row: what a gateway lists, what a run makes of it.

Each kind is one that was reported in public against other software; the amounts are ours.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from support.planted_books import AS_OF, DAY
from support.small_books import OLD, classes, filled, found_in, reconciled, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.base import ListFailed
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.paypal.search import movement_of as paypal_row
from streamsocial_billing.gateways.settlement_lines import Line
from streamsocial_billing.gateways.stripe.shapes import movement_of as stripe_row
from streamsocial_billing.reconciliation.not_ours import not_ours

CHARGE_KEY = gateway_key_of("ann", "charge", "p0")
REFUND_KEY = gateway_key_of("ann", "refund", "r0")
WORDS = {"ref": CHARGE_KEY, "user_id": "ann", "payment_id": "p0"}
REFUND_WORDS = {"ref": REFUND_KEY, "user_id": "ann", "payment_id": "r0"}
PAID: dict[str, Any] = {"amount_minor": 2500, "gateway": "stripe", "gateway_ref": "ch_1"}


def stripe_charge(**more: Any) -> Movement:
    """Our charge of 25.00 EUR in Stripe's list."""
    row = {"id": "ch_1", "amount": 2500, "currency": "eur", "status": "succeeded", "created": OLD // 1000,
           "captured": True, "metadata": WORDS}  # fmt: skip
    return stripe_row("charge", row | more)


def stripe_dispute(status: str, *moved: int, **more: Any) -> Movement:
    """A dispute of 5.00 of it."""
    rows = [{"amount": one, "currency": "eur", "fee": 0} for one in moved]
    row = {"id": "dp_1", "amount": 500, "currency": "eur", "status": status, "created": OLD // 1000,
           "charge": "ch_1", "metadata": {}, "balance_transactions": rows}  # fmt: skip
    return stripe_row("dispute", row | more)


def stripe_refund(status: str, **more: Any) -> Movement:
    """Our refund of 5.00 of it."""
    row = {"id": "re_1", "amount": 500, "currency": "eur", "status": status, "created": OLD // 1000,
           "charge": "ch_1", "metadata": REFUND_WORDS}  # fmt: skip
    return stripe_row("refund", row | more)


def paypal(code: str, name: str, value: str, **more: Any) -> Movement | None:
    """A row of PayPal's transaction search."""
    at = datetime.fromtimestamp(OLD / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
    info = {"transaction_id": name, "transaction_event_code": code, "transaction_status": "S",
            "transaction_initiation_date": at,
            "transaction_amount": {"currency_code": "EUR", "value": value}}  # fmt: skip
    return paypal_row({"transaction_info": info | more})


def listed(*rows: Movement | None) -> list[Movement]:
    """Those rows that are movements."""
    return [row for row in rows if row is not None]


def of_paypal(*results: bytes, rows: list[Movement]) -> list[dict[str, Any]]:
    """The breaks, our charge CAP1 of 25.00 EUR among the books and the rows."""
    paid = result("p0", **(PAID | {"gateway": "paypal", "gateway_ref": "CAP1"}))
    charge = listed(paypal("T0006", "CAP1", "25.00", invoice_id=CHARGE_KEY, custom_field=CHARGE_KEY))
    return reconciled([paid, *results], charge + rows, gateway="paypal")[0]


def of_stripe(*rows: Movement, results: tuple[bytes, ...] = ()) -> list[dict[str, Any]]:
    """The breaks, our charge ch_1 of 25.00 EUR among the books and the rows."""
    return reconciled([result("p0", **PAID), *results], [stripe_charge(), *rows], gateway="stripe")[0]


def external(payment_id: str, reason: str | None, amount: int, ref: str = "dp_1") -> bytes:
    """What our books have of something made at Stripe, of the charge p0."""
    action = "refund" if reason in ("dispute", None) else "charge"
    return result(payment_id, reason=reason, origin="external", action=action, gateway="stripe",
                  amount_minor=amount, gateway_ref=ref, refund_of="p0")  # fmt: skip


def repairs(found: list[dict[str, Any]]) -> list[bool]:
    """Whether the run itself repairs each."""
    return [one["action"].startswith("repair: ") for one in found]


def events(rows: list[Movement], *results: bytes, gateway: str = "stripe") -> list[dict[str, Any]]:
    """The repairs of a run over our charge with these."""
    db = filled(results, rows, gateway=gateway)
    found_in(db)
    found = db.execute("SELECT event FROM breaks WHERE event IS NOT NULL ORDER BY event").fetchall()
    return [event for (text,) in found for event in orjson.loads(text)]


# ---- A, H, I: disputes


@pytest.mark.parametrize("status", ["warning_needs_response", "warning_under_review", "warning_closed"])
def test_row_a_an_inquiry_moves_no_money(status: str) -> None:
    """Without balance transactions nothing was lost, whatever its status: no break, no repair."""
    assert [] == of_stripe(stripe_dispute(status))
    assert [] == of_stripe(stripe_dispute(status, balance_transactions=None))


def test_row_a_a_dispute_is_booked_once_its_money_is_withdrawn() -> None:
    """By the balance transaction, under the same id as the inquiry before it."""
    found = of_stripe(stripe_dispute("needs_response", -500))
    assert [("dispute_unbooked", "dp_1")] == classes(found)
    assert [True] == repairs(found)


def test_row_h_a_dispute_that_gave_a_part_back_is_lost_by_the_rest() -> None:
    """5.00 withdrawn, 2.00 reinstated, closed as lost: our books say so, nothing is open."""
    books = external("x1_a", "dispute", 500), external("x1_b", "dispute_won", 200)
    assert [] == of_stripe(stripe_dispute("lost", -500, 200), results=books)


def test_row_h_the_part_that_came_back_is_repaired() -> None:
    """Our books have the 5.00 alone: 2.00 are at stake, and the repair says 2.00."""
    rows = [stripe_charge(), stripe_dispute("lost", -500, 200)]
    books = result("p0", **PAID), external("x1_a", "dispute", 500)
    found, _ = reconciled(books, rows, gateway="stripe")
    assert [("dispute_unbooked", 200)] == [(one["class"], one["at_stake_minor"]) for one in found]
    (event,) = events(rows, *books)
    assert ("dispute", "declined", 200, "p0") == (
        event["kind"], event["status"], event["amount_minor"], event["charge_id"]
    )  # fmt: skip


def test_row_h_a_dispute_that_our_books_call_won_is_open_while_money_is_missing() -> None:
    """What an earlier release booked as won in full: nobody mends that alone."""
    books = external("x1_a", "dispute", 500), external("x1_b", "dispute_won", 500)
    found = of_stripe(stripe_dispute("lost", -500, 200), results=books)
    assert [("dispute_unbooked", 300)] == [(one["class"], one["at_stake_minor"]) for one in found]
    assert [False] == repairs(found)


def test_row_h_what_our_books_never_heard_of_is_repaired_in_one_run() -> None:
    """5.00 taken and 2.00 back, both missed: one break over 3.00, two records in this order."""
    rows = [stripe_charge(), stripe_dispute("lost", -500, 200)]
    found, _ = reconciled([result("p0", **PAID)], rows, gateway="stripe")
    assert [("dispute_unbooked", 300)] == [(one["class"], one["at_stake_minor"]) for one in found]
    first, second = events(rows, result("p0", **PAID))
    assert [("succeeded", 500), ("declined", 200)] == [
        (one["status"], one["amount_minor"]) for one in (first, second)
    ]
    assert second["event_id"] == f"{first['event_id']}:returned"


def test_a_dispute_that_took_more_since_is_repaired_by_what_it_took_in_all() -> None:
    """3.00 in our books, 5.00 at the gateway: amounts are counted from the first movement on."""
    books = result("p0", **PAID), external("x1_a", "dispute", 300)
    (event,) = events([stripe_charge(), stripe_dispute("needs_response", -300, -200)], *books)
    assert ("succeeded", 500) == (event["status"], event["amount_minor"])


def test_a_dispute_that_our_books_have_and_the_gateway_never_took_is_given_back() -> None:
    """What an earlier release booked of an inquiry by its status: the repair undoes it."""
    books = result("p0", **PAID), external("x1_a", "dispute", 500)
    (event,) = events([stripe_charge(), stripe_dispute("warning_closed")], *books)
    assert ("declined", 500) == (event["status"], event["amount_minor"])


def test_a_dispute_that_moved_money_several_times_is_one_row() -> None:
    """Withdrawn twice, reinstated twice: sums on both sides."""
    books = (external("x1_a", "dispute", 300), external("x1_b", "dispute_won", 100),
             external("x1_c", "dispute", 200), external("x1_d", "dispute_won", 400))  # fmt: skip
    assert [] == of_stripe(stripe_dispute("won", -300, 100, -200, 400), results=books)


def observed(seen: str, ref: str = "dp_1") -> tuple[object, ...]:
    """An entry that only the gateway told of."""
    return ("ann/x1_o", "ann", "x1_o", "stripe", ref, "refund", seen, 500, "EUR", AS_OF - DAY)


@pytest.mark.parametrize(("seen", "open_breaks"), [("declined", 1), ("pending", 1), ("succeeded", 0)])
def test_row_i_only_what_was_seen_to_succeed_hides_a_row_of_the_list(seen: str, open_breaks: int) -> None:
    """An inquiry was closed, then funds were withdrawn under the same id: a repair books it."""
    rows = [stripe_charge(), stripe_dispute("needs_response", -500)]
    db = filled([result("p0", **PAID)], rows, gateway="stripe")
    db.execute("INSERT INTO observed VALUES (?,?,?,?,?,?,?,?,?,?)", observed(seen))
    found = [one for one in found_in(db) if one["gateway_ref"] == "dp_1" and one["class"] != "observed_aged"]
    assert open_breaks == len(found)
    assert [True] * open_breaks == repairs(found)


# ---- B: a refund that failed


def test_row_b_a_refund_that_failed_after_it_succeeded_is_repaired_once() -> None:
    """The repair names refund and charge; with the second outcome in the books nothing is open."""
    refunded = result("r0", action="refund", refund_of="p0", **(PAID | {"amount_minor": 500,
                      "gateway_ref": "re_1"}))  # fmt: skip
    rows = [stripe_charge(), stripe_refund("failed", failure_balance_transaction="txn_9")]
    (event,) = events(rows, result("p0", **PAID), refunded)
    assert ("refund", "declined", "r0", "p0", 500) == (
        event["kind"], event["status"], event["payment_id"], event["charge_id"], event["amount_minor"]
    )  # fmt: skip
    back = external("x1_f", "refund_failed", 500, "re_1")
    assert [] == reconciled([result("p0", **PAID), refunded, back], rows, gateway="stripe")[0]


def test_row_b_a_refund_made_at_the_gateway_fails_too() -> None:
    """It has no reference of ours: its charge says whose it is."""
    rows = [stripe_charge(), stripe_refund("failed", metadata={})]
    books = result("p0", **PAID), external("x1_r", None, 500, "re_1")
    (event,) = events(rows, *books)
    assert (None, None, "p0", "declined") == (
        event["ref"], event["payment_id"], event["charge_id"], event["status"]
    )  # fmt: skip
    assert [] == reconciled([*books, external("x1_f", "refund_failed", 500, "re_1")], rows,
                            gateway="stripe")[0]  # fmt: skip


# ---- C, L, M: what is not ours


def test_row_c_a_charge_of_others_in_a_withdrawn_currency_is_counted() -> None:
    """30.00 in `ang`: no KeyError, no break, shown as it came."""
    foreign = stripe_charge(id="ch_9", amount=3000, currency="ang", metadata={})
    db = filled([result("p0", **PAID)], [stripe_charge(), foreign], gateway="stripe")
    assert [] == found_in(db)
    (row,) = not_ours(db)
    assert ("list", "stripe", "ANG", "charge", 1, 3000) == tuple(row.values())


@pytest.mark.parametrize(
    "broken",
    [{"currency": None}, {"amount": None}, {"amount": 2**70}, {"created": "x"}, {"id": None}, {"status": []},
     {"currency": "zzz"}, {"metadata": "x"}],
)  # fmt: skip
def test_row_c_no_row_of_others_ends_a_run(broken: dict[str, Any]) -> None:
    """Whatever it holds; the same row under our reference does."""
    foreign = stripe_charge(**({"id": "ch_9", "metadata": {"order": "WC-123"}} | broken))
    db = filled([result("p0", **PAID)], [stripe_charge(), foreign], gateway="stripe")
    assert [] == found_in(db)
    assert [1] == [one["count"] for one in not_ours(db)]


def test_row_c_what_is_ours_and_not_readable_ends_it_with_a_line() -> None:
    """A charge under our reference; a refund of a charge of ours."""
    with pytest.raises(ValueError, match="ch_1"):
        stripe_charge(amount=None)
    with pytest.raises(ListFailed, match="CAP1"):
        paypal("T0006", "CAP1", "x", invoice_id=CHARGE_KEY)
    with pytest.raises(InputRefused, match="refund re_1 of our charge ch_1"):
        of_stripe(stripe_refund("succeeded", metadata={}, amount=None))


def test_row_c_the_same_at_paypal() -> None:
    """A withdrawn currency, a code that nobody knows, a row that makes no sense."""
    money = {"currency_code": "ANG", "value": "30.00"}
    rows = listed(
        paypal("T0006", "X1", "", transaction_amount=money), paypal("T0006", "X2", "1.5.0"),
        paypal("T0006", "X3", "", transaction_amount=money | {"currency_code": "QQQ", "value": "1.00"}),
        paypal_row({"transaction_info": None}), paypal_row(7),
    )
    assert [] == of_paypal(rows=rows)
    assert [3000, 0, 100] == [row.amount_minor for row in rows[:3]]


@pytest.mark.parametrize("name", ["transaction_id", "currency_code"])
def test_row_c_half_a_surrogate_pair_at_paypal_is_named_if_ours_else_counted(name: str) -> None:
    """JSON may hold one; no table and no report can."""
    money = {"currency_code": "USD", "value": "5"}
    said = {"transaction_amount": money | ({name: "\ud800"} if name in money else {})}
    about = said | ({name: "\ud800"} if name not in money else {})
    assert ["unreadable"] == [row.status for row in listed(paypal("T0006", "X1", "5", **about))]
    with pytest.raises(ListFailed, match="cannot be read"):
        paypal("T0006", "CAP1", "5", invoice_id=CHARGE_KEY, **about)


def test_row_l_a_payment_that_we_made_is_no_charge() -> None:
    """T0000 with -30.00."""
    assert paypal("T0000", "X1", "-30.00") is None


def test_row_m_another_shop_on_the_account_breaks_nothing() -> None:
    """Its sale, its refund, its partial capture, in list and file, settled or not."""
    words = {"invoice_id": "WC-123", "custom_field": "order 7"}
    rows = listed(
        paypal("T0006", "W1", "40.00", **words), paypal("T0003", "W2", "7.00", **words),
        paypal("T1107", "W3", "-40.00", paypal_reference_id="W1", **words),
    )
    paid = result("p0", **(PAID | {"gateway": "paypal", "gateway_ref": "CAP1"}))
    charge = listed(paypal("T0006", "CAP1", "25.00", invoice_id=CHARGE_KEY))

    def line(kind: str, ref: str, gross: int) -> Line:
        return Line(kind, "paypal", f"{ref}:T", ref, None, None, gross, 0, gross, "EUR", None, OLD)

    lines = [line("charge", "CAP1", 2500), line("charge", "W1", 3999), line("refund", "W8", -100),
             line("charge", "W9", 900), line("dispute", "W7", -50)]  # fmt: skip
    db = filled([paid], charge + rows, lines, "paypal")
    assert [] == found_in(db)
    counted = {(one["leg"], one["kind"]): one["count"] for one in not_ours(db)}
    assert {("list", "charge"): 2, ("list", "refund"): 1, ("files", "charge"): 2, ("files", "refund"): 1,
            ("files", "dispute"): 1} == counted  # fmt: skip


# ---- D, G, N: PayPal's own ways


@pytest.mark.parametrize("custom", [CHARGE_KEY, f"{CHARGE_KEY}:ann:p0", None])
def test_row_d_a_refund_that_bears_its_charges_key_was_made_at_the_gateway(custom: str | None) -> None:
    """PayPal's dashboard copies invoice and custom field: the refund is booked, not refunded once more."""
    row = paypal("T1107", "REF1", "-7.00", invoice_id=CHARGE_KEY, custom_field=custom,
                 paypal_reference_id="CAP1")  # fmt: skip
    found = of_paypal(rows=listed(row))
    assert [("refund_mismatch", "REF1")] == classes(found)
    assert [True] == repairs(found)


def test_row_d_also_where_it_does_not_name_its_charge() -> None:
    """The copied key leads to it, whether our books have the charge or the list alone."""
    row = paypal("T1107", "REF1", "-7.00", invoice_id=CHARGE_KEY)
    found = of_paypal(rows=listed(row))
    assert [("refund_mismatch", "REF1", "p0")] == [
        (one["class"], one["gateway_ref"], one["payment_id"]) for one in found
    ]
    assert [True] == repairs(found)


def test_row_d_also_where_nobody_knows_its_charge() -> None:
    """The copied words name user and charge: the repair waits for the charge's own event."""
    row = paypal("T1107", "REF1", "-7.00", invoice_id=CHARGE_KEY, custom_field=f"{CHARGE_KEY}:ann:p0")
    (event,) = events(listed(row), gateway="paypal")
    assert (None, "ann", None, "p0") == (
        event["ref"], event["user_id"], event["payment_id"], event["charge_id"]
    )  # fmt: skip


def test_row_d_a_refund_of_ours_stays_ours() -> None:
    """It bears its own key: matched, no break."""
    booked = result("r0", action="refund", refund_of="p0", amount_minor=700, gateway="paypal",
                    gateway_ref="REF1")  # fmt: skip
    row = paypal("T1107", "REF1", "-7.00", invoice_id=REFUND_KEY, paypal_reference_id="CAP1")
    assert [] == of_paypal(booked, rows=listed(row))


@pytest.mark.parametrize("code", ["T1106", "T1201"])
def test_row_g_a_reversal_is_a_dispute(code: str) -> None:
    """T1106 as T1201: the money was taken back."""
    row = paypal(code, "REV1", "-25.00", paypal_reference_id="CAP1")
    found = of_paypal(rows=listed(row))
    assert [("dispute_unbooked", "REV1")] == classes(found)
    assert [True] == repairs(found)


@pytest.mark.parametrize("reference", ["REV1", "CAP1"])
def test_row_g_a_reversal_of_the_reversal_is_the_same_dispute_won(reference: str) -> None:
    """T1202 names the dispute or its charge, in the list as in the file: nothing is lost."""
    rows = listed(
        paypal("T1201", "REV1", "-25.00", paypal_reference_id="CAP1"),
        paypal("T1202", "BACK1", "25.00", paypal_reference_id=reference),
    )
    assert [] == of_paypal(rows=rows)
    told: dict[str, Any] = {"origin": "external", "gateway": "paypal", "gateway_ref": "REV1",
                            "amount_minor": 2500, "refund_of": "p0"}  # fmt: skip
    taken = result("x1_a", reason="dispute", action="refund", **told)
    found = of_paypal(taken, rows=rows)
    assert [("dispute_unbooked", "REV1")] == classes(found)
    assert [] == of_paypal(taken, result("x1_b", reason="dispute_won", action="charge", **told), rows=rows)

    def line(name: str, gross: int) -> Line:
        return Line("dispute", "paypal", f"{name}:T", name, "CAP1", None, gross, 0, gross, "EUR", None, OLD)

    paid = result("p0", **(PAID | {"gateway": "paypal", "gateway_ref": "CAP1"}))
    charge = listed(paypal("T0006", "CAP1", "25.00", invoice_id=CHARGE_KEY))
    lines = [line("REV1", -2500), line("BACK1", 2500)]
    assert [] == reconciled([paid], charge + rows, lines, gateway="paypal")[0]


def test_row_n_the_reference_alone_says_that_it_is_ours() -> None:
    """A custom_id that was cut down to it: whose it is our books know."""
    row = paypal("T0006", "CAP1", "25.00", invoice_id=None, custom_field=CHARGE_KEY)
    assert row is not None
    assert (CHARGE_KEY, None) == (row.ref, row.user_id)
    open_ = result("p0", "unknown", **(PAID | {"gateway": "paypal", "gateway_ref": None}))
    found, _ = reconciled([open_], [row], gateway="paypal")
    assert [("missing_internal", "CAP1")] == classes(found)
    assert [True] == repairs(found)
