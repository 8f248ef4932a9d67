"""What a dispute or a refund moved is what its balance transactions say."""

from __future__ import annotations

from typing import Any

import pytest

from streamsocial_billing.gateways.moved import (
    Moved,
    paypal_kind,
    stripe_dispute,
    stripe_dispute_by_status,
    stripe_refund,
)


def dispute(status: str, *amounts: int, currency: str = "eur", fee: int = 0) -> dict[str, Any]:
    """5.00 EUR, with balance transactions of these amounts."""
    rows = [{"amount": one, "currency": currency, "fee": fee if one < 0 else 0} for one in amounts]
    return {"amount": 500, "currency": "eur", "status": status, "balance_transactions": rows}


@pytest.mark.parametrize(
    ("it", "moved"),
    [
        (dispute("warning_needs_response"), Moved("pending", 0, 0)),
        (dispute("warning_under_review"), Moved("pending", 0, 0)),
        (dispute("warning_closed"), Moved("declined", 0, 0)),
        (dispute("a_status_of_tomorrow"), Moved("pending", 0, 0)),
        (dispute("needs_response", -500, fee=1500), Moved("succeeded", 500, 0, 1500)),
        (dispute("warning_closed", -500), Moved("succeeded", 500, 0)),
        (dispute("won", -500), Moved("succeeded", 500, 0)),
        (dispute("won", -500, 500), Moved("declined", 500, 500)),
        (dispute("lost", -500, 200), Moved("succeeded", 500, 200)),
        (dispute("lost", -300, -200, 100, 100), Moved("succeeded", 500, 200)),
        (dispute("needs_response", -550, currency="usd"), Moved("succeeded", 500, 0)),
        (dispute("lost", -550, 220, currency="usd"), Moved("succeeded", 500, 200)),
        (dispute("won", -550, 550, currency="usd"), Moved("declined", 500, 500)),
    ],
)  # fmt: skip
def test_a_dispute_moved_the_sum_of_its_balance_transactions(it: dict[str, Any], moved: Moved) -> None:
    """Its status moves nothing: an inquiry has none, one that is lost may have given a part back."""
    assert moved == stripe_dispute(it)


def test_without_balance_transactions_only_an_end_tells() -> None:
    """An object that does not list them says nothing while it is open."""
    assert stripe_dispute({"amount": 500, "status": "lost"}) is None
    statuses = ("warning_needs_response", "needs_response", "lost", "won", "warning_closed")
    said = [stripe_dispute_by_status({"amount": 500, "status": one}).status for one in statuses]
    assert ["pending", "pending", "succeeded", "declined", "declined"] == said


@pytest.mark.parametrize(
    ("more", "moved"),
    [
        ({"status": "succeeded", "balance_transaction": "txn_1"}, Moved("succeeded", 500, 0)),
        ({"status": "pending", "balance_transaction": "txn_1"}, Moved("pending", 500, 0)),
        ({"status": "requires_action"}, Moved("pending", 0, 0)),
        ({"status": "failed", "balance_transaction": "txn_1", "failure_balance_transaction": "txn_2"},
         Moved("declined", 500, 500)),
        ({"status": "succeeded", "failure_balance_transaction": "txn_2"}, Moved("declined", 500, 500)),
        ({"status": "canceled"}, Moved("declined", 0, 0)),
        ({"status": "of_tomorrow"}, None),
    ],
)  # fmt: skip
def test_a_refund_that_failed_is_back_in_the_balance(more: dict[str, Any], moved: Moved | None) -> None:
    """Also one that succeeded before."""
    assert moved == stripe_refund({"amount": 500, **more})


@pytest.mark.parametrize(
    ("code", "sign", "kind"),
    [
        ("T0006", 1, "charge"), ("T0000", -1, None), ("T1107", -1, "refund"), ("T1107", 1, None),
        ("T1106", -1, "dispute"), ("T1201", -1, "dispute"), ("T1202", 1, "dispute_won"), ("T1202", -1, None),
        ("T0400", -1, "payout"), ("T0200", -1, "conversion"), ("T0201", 1, "conversion"), ("T1110", -1, None),
        ("", 1, None),
    ],
)  # fmt: skip
def test_what_paypals_rows_moved(code: str, sign: int, kind: str | None) -> None:
    """By T-code and sign, in the list as in the file: a payment that we made is no charge."""
    assert kind == paypal_kind(code, sign)
