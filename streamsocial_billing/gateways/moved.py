"""What a dispute or a refund moved: its balance transactions say it, never its status.

One reading for webhooks, lists and settlement files. All amounts are minor units, counted from the first
movement on: `withdrawn_minor` is what left our balance in all, `returned_minor` what of it came back in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Moved(NamedTuple):
    """What an object moved, in the object's own currency.

    status           `pending`: nothing moved, it may still; `succeeded`: money left and is not back, or not
                     all of it; `declined`: nothing moved, or all of it came back, and nothing more will
    withdrawn_minor  left our balance in all
    returned_minor   of it came back in all
    fees_minor       what the gateway took for it, minor units of the balance's currency
    """

    status: str
    withdrawn_minor: int
    returned_minor: int
    fees_minor: int = 0

    @property
    def kept_minor(self) -> int:
        """What is gone: withdrawn less returned."""
        return self.withdrawn_minor - self.returned_minor


_OVER: Final = frozenset({"won", "lost", "warning_closed", "prevented"})
_FAILED: Final = frozenset({"failed", "canceled"})
_REFUND_STATUSES: Final = {"succeeded": "succeeded", "pending": "pending", "requires_action": "pending"}


def stripe_dispute(dispute: Mapping[str, Any]) -> Moved | None:
    """By `balance_transactions` (docs.stripe.com/api/disputes/object); None where the object lacks the list.

    Raises ValueError where a row of it cannot be read: the others alone could say that money is back.

    An inquiry (`warning_*`) has none: it is pending until it is closed. A balance in another currency than
    the dispute's is followed by shares, as the exchange rate of each row is Stripe's own.
    """
    rows = dispute.get("balance_transactions")
    amount = dispute.get("amount")
    if rows is None or type(amount) is not int:
        return None
    rows = rows if isinstance(rows, list) else [rows]
    moves = [row for row in rows if isinstance(row, dict) and type(row.get("amount")) is int]
    if len(moves) < len(rows):
        raise ValueError("balance_transactions")
    withdrawn = -sum(row["amount"] for row in moves if row["amount"] < 0)
    returned = sum(row["amount"] for row in moves if row["amount"] > 0)
    fees = sum(row["fee"] for row in moves if type(row.get("fee")) is int)
    if withdrawn and any(row.get("currency", dispute.get("currency")) != dispute.get("currency")
                         for row in moves):  # fmt: skip
        withdrawn, returned = amount, _share(amount, returned, withdrawn)
    if withdrawn <= 0:
        return Moved("declined" if dispute.get("status") in _OVER else "pending", 0, 0, fees)
    returned = min(returned, withdrawn)
    return Moved("declined" if returned == withdrawn else "succeeded", withdrawn, returned, fees)


def stripe_dispute_by_status(dispute: Mapping[str, Any]) -> Moved:
    """What is known of a dispute that does not list its balance transactions: only an end tells of money."""
    status = dispute.get("status")
    amount = dispute["amount"] if type(dispute.get("amount")) is int else 0
    if status == "lost":
        return Moved("succeeded", amount, 0)
    if status == "won":
        return Moved("declined", amount, amount)
    return Moved("declined" if status in _OVER else "pending", 0, 0)


def stripe_refund(refund: Mapping[str, Any]) -> Moved | None:
    """By `failure_balance_transaction`, then the status; None for a status that is not known.

    A refund may fail weeks after it succeeded: then the failure's balance transaction gives the amount back
    (docs.stripe.com/refunds, "Failed refunds").
    """
    amount = refund["amount"] if type(refund.get("amount")) is int else 0
    said = str(refund.get("status"))
    left = amount if refund.get("balance_transaction") else 0
    if refund.get("failure_balance_transaction"):
        return Moved("declined", amount, amount)
    if said in _FAILED:
        return Moved("declined", left, left)
    status = _REFUND_STATUSES.get(said)
    if status is None:
        return None
    return Moved(status, amount if status == "succeeded" else left, 0)


CHARGE, REFUND, DISPUTE, DISPUTE_WON, PAYOUT, CONVERSION = (
    "charge", "refund", "dispute", "dispute_won", "payout", "conversion",
)  # fmt: skip
_PAYPAL_DEBITS: Final = {"T1107": REFUND, "T1106": DISPUTE, "T1201": DISPUTE}


def paypal_kind(code: str, amount_minor: int) -> str | None:
    """What a row of PayPal's list or report moved, by its T-code and its sign; None: an adjustment.

    `charge` (T00xx that we received: one that we paid is none), `refund` (T1107), `dispute` (T1106 reversal,
    T1201 chargeback), `dispute_won` (T1202, a credit: the reversal of such a one), `payout` (T04xx, a
    withdrawal), `conversion` (T0200, T0201: from one currency into another).
    (developer.paypal.com/docs/transaction-search/transaction-event-codes)
    """
    if code.startswith("T00"):
        return CHARGE if amount_minor > 0 else None
    if code == "T1202":
        return DISPUTE_WON if amount_minor > 0 else None
    if code in _PAYPAL_DEBITS:
        return _PAYPAL_DEBITS[code] if amount_minor < 0 else None
    if code.startswith("T04"):
        return PAYOUT
    return CONVERSION if code in ("T0200", "T0201") else None


def _share(amount: int, part: int, whole: int) -> int:
    """`amount * part / whole`, rounded half up: all stays all, nothing stays nothing."""
    return (2 * amount * part + whole) // (2 * whole)
