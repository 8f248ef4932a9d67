"""Payments by an intent: our books and the list name the intent, settlement files its charge."""

from __future__ import annotations

from typing import Any

from support.planted_books import DAY
from support.small_books import OLD, classes, filled, found_in, reconciled, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.settlement_lines import Line

REF = gateway_key_of("ann", "charge", "p1")


def moved(status: str, charge: str, intent: str = "pi_1", **more: Any) -> Movement:
    """A charge of the intent as the list has it."""
    fields: dict[str, Any] = {
        "gateway_ref": intent, "kind": "charge", "status": status, "amount_minor": 100, "currency": "EUR",
        "created_ms": OLD, "ref": REF, "payment_id": "p1", "user_id": "ann", "intent_charge": charge,
    } | more  # fmt: skip
    return Movement(**fields)


def line(kind: str, ref: str, gross: int, **more: Any) -> Line:
    """A line of a settlement file."""
    fields: dict[str, Any] = {
        "kind": kind, "gateway": "simulated", "line_id": f"txn_{ref}", "gateway_ref": ref, "charge_ref": None,
        "ref": None, "gross": gross, "fee": 0, "net": gross, "currency": "EUR", "payout_id": None,
        "at": OLD + DAY,
    } | more  # fmt: skip
    return Line(**fields)


PAID = result("p1", gateway_ref="pi_1", intent_charge="ch_2")


def test_failed_charges_and_the_good_one_are_one_payment() -> None:
    """They share our reference: no duplicate, whatever their order."""
    tries = [moved("failed", "ch_1"), moved("succeeded", "ch_2"), moved("failed", "ch_3")]
    for order in (tries, tries[::-1]):
        found, _ = reconciled([PAID], order)
        assert [] == found


def test_another_intent_under_our_reference_is_a_duplicate() -> None:
    """Two intents that both succeeded are two payments."""
    found, _ = reconciled([PAID], [moved("succeeded", "ch_2"), moved("succeeded", "ch_9", "pi_9")])
    assert [("duplicate_external", "pi_9")] == classes(found)


def test_a_settlement_file_names_the_charge() -> None:
    """Its lines are found by the list, or by our books where the list begins later; refunds, too."""
    refunded = result("r1", action="refund", amount_minor=40, refund_of="p1", gateway_ref="re_1")
    refund = Movement(
        gateway_ref="re_1", kind="refund", status="succeeded", amount_minor=40, currency="EUR",
        created_ms=OLD, ref=gateway_key_of("ann", "refund", "r1"), payment_id="r1", user_id="ann",
        charge_ref="pi_1",
    )  # fmt: skip
    lines = [line("charge", "ch_2", 100), line("refund", "re_1", -40, charge_ref="ch_2")]
    assert [] == reconciled([PAID, refunded], [moved("succeeded", "ch_2"), refund], lines)[0]
    found, _ = reconciled([PAID, refunded], [refund], lines)
    assert [("missing_external", "pi_1")] == classes(found)


def test_a_line_of_the_charge_is_held_against_the_intent() -> None:
    """By the list; where that begins later, by our books."""
    short = [line("charge", "ch_2", 90)]
    found, _ = reconciled([PAID], [moved("succeeded", "ch_2")], short)
    assert [("amount_mismatch", "pi_1")] == classes(found)
    found, _ = reconciled([PAID], [], short)
    assert [("amount_mismatch", "pi_1"), ("missing_external", "pi_1")] == classes(found)


def test_one_that_waits_for_its_customer_is_no_break() -> None:
    """Neither alone nor beside its failed charge; a success that nobody told us is repaired."""
    waits = result("p1", "unknown", reason="authentication_required", gateway_ref="pi_1")
    told_nobody = [("missing_internal", "pi_1")]
    for movements, expected in (
        ([], []), ([moved("failed", "ch_1")], []), ([moved("succeeded", "ch_2")], told_nobody),
    ):  # fmt: skip
        db = filled([waits], movements)
        db.execute("INSERT INTO waiting VALUES ('ann/p1')")
        assert expected == classes(found_in(db))


def test_a_failed_charge_of_an_open_payment_declines_nothing() -> None:
    """It may only want its customer: shown, without a repair."""
    unknown = result("p1", "unknown", reason="outcome_unknown", gateway_ref=None)
    db = filled([unknown], [moved("failed", "ch_1")])
    (one,) = found_in(db)
    assert ("status_mismatch", 0) == (
        one["class"], db.execute("SELECT count(*) FROM breaks WHERE event IS NOT NULL").fetchone()[0],
    )  # fmt: skip


def test_a_success_after_our_decline_is_booked_by_a_repair_then_its_refund_is_proposed() -> None:
    """`status_mismatch` until what was booked for it is refunded."""
    declined = result("p1", "declined", reason="lost_card", gateway_ref="pi_1")
    db = filled([declined], [moved("succeeded", "ch_2")])
    (one,) = found_in(db)
    assert "status_mismatch" == one["class"] and "repair" in one["action"]
    assert 1 == db.execute("SELECT count(*) FROM breaks WHERE event IS NOT NULL").fetchone()[0]

    late = result(
        "x1_late", reason="succeeded_after_decline", origin="external", gateway_ref="pi_1", refund_of="p1",
        intent_charge="ch_2",
    )  # fmt: skip
    found, _ = reconciled([declined, late], [moved("succeeded", "ch_2")])
    assert [("status_mismatch", "pi_1")] == classes(found)
    assert "proposed: refund 1.00 EUR of x1_late" in found[0]["action"]

    back = result("r1", action="refund", refund_of="x1_late", gateway_ref="re_1")
    refund = Movement(
        gateway_ref="re_1", kind="refund", status="succeeded", amount_minor=100, currency="EUR",
        created_ms=OLD, ref=gateway_key_of("ann", "refund", "r1"), payment_id="r1", user_id="ann",
        charge_ref="pi_1",
    )  # fmt: skip
    assert [] == reconciled([declined, late, back], [moved("succeeded", "ch_2"), refund])[0]
