"""Where a gateway does not say what a dispute moved, nothing is booked and nothing is given back."""

from __future__ import annotations

from typing import Any

import pytest
from support.small_books import OLD, filled, found_in, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.provider_event import Unreadable
from streamsocial_billing.gateways.stripe import webhook as stripe
from streamsocial_billing.gateways.stripe.shapes import movement_of

KEY = gateway_key_of("ann", "charge", "p0")
PAID: dict[str, Any] = {"amount_minor": 2500, "gateway": "stripe", "gateway_ref": "ch_1"}
JUNK: list[Any] = [[None], [7], [{}], ["txn_1"], [{"amount": "-500"}], [{"amount": -500.0}], {}, "x",
                   [{"amount": -500, "currency": "eur"}, {"amount": None}]]  # fmt: skip


def dispute(status: str, rows: Any) -> dict[str, Any]:
    """Of 5.00 EUR, of our charge."""
    return {"id": "dp_1", "object": "dispute", "amount": 500, "currency": "eur", "status": status,
            "created": OLD // 1000, "charge": "ch_1", "metadata": {}, "reason": "fraudulent",
            "balance_transactions": rows}  # fmt: skip


def found(moved: Movement, *, booked: bool) -> list[tuple[str, int, bool]]:
    """Class, money at stake, whether it is repaired."""
    told: dict[str, Any] = PAID | {"reason": "dispute", "action": "refund", "origin": "external",
                                   "gateway_ref": "dp_1", "amount_minor": 500, "refund_of": "p0"}  # fmt: skip
    charge = Movement("ch_1", "charge", "succeeded", 2500, "EUR", OLD, KEY, "p0", "ann")
    results = [result("p0", **PAID)] + ([result("x1_a", **told)] if booked else [])
    rows = found_in(filled(results, [charge, moved], gateway="stripe"))
    return [(one["class"], one["at_stake_minor"], one["action"].startswith("repair: ")) for one in rows]


@pytest.mark.parametrize("rows", JUNK)
@pytest.mark.parametrize("booked", [True, False])
def test_balance_transactions_that_cannot_be_read_end_the_run(rows: Any, booked: bool) -> None:
    """Passed over they would say that nothing moved, or that all is back."""
    with pytest.raises(InputRefused, match="the dispute dp_1 of our charge ch_1"):
        found(movement_of("dispute", dispute("lost", rows)), booked=booked)


@pytest.mark.parametrize("rows", JUNK)
@pytest.mark.parametrize("kind", ["created", "funds_withdrawn", "funds_reinstated", "closed"])
def test_a_message_about_them_is_refused(rows: Any, kind: str) -> None:
    """422 for what is ours: it comes again."""
    it = {"object": dispute("lost", rows)}
    message = {"id": "evt_1", "type": f"charge.dispute.{kind}", "created": 1, "data": it}
    with pytest.raises(Unreadable, match="balance_transactions"):
        stripe.read(message)


@pytest.mark.parametrize(
    ("status", "rows"),
    [("needs_response", None), ("needs_response", []), ("under_review", None), ("under_review", []),
     ("of_tomorrow", []), ("warning_needs_response", None)],
)  # fmt: skip
def test_a_dispute_that_is_pending_gives_nothing_back(status: str, rows: Any) -> None:
    """Our books have it as taken: a person looks; if they do not, nothing is open."""
    moved = movement_of("dispute", dispute(status, rows))
    assert [("dispute_unbooked", 500, False)] == found(moved, booked=True)
    assert [] == found(moved, booked=False)


@pytest.mark.parametrize(
    "status", ["warning_needs_response", "warning_under_review", "warning_closed", "won", "lost", "prevented"]
)
def test_an_inquiry_or_an_end_that_took_nothing_is_given_back(status: str) -> None:
    """Its list is there and empty, so what an earlier release booked is repaired; else nothing is open."""
    moved = movement_of("dispute", dispute(status, []))
    assert [("dispute_unbooked", 500, True)] == found(moved, booked=True)
    assert [] == found(moved, booked=False)
