"""Books of an audit in which nothing is wrong, made by hand."""

from __future__ import annotations

from typing import Any

from support.charge_states import after

from streamsocial_billing.audit.books import Books, Entry, LedgerCharge, LedgerRefund, Result, Sent
from streamsocial_billing.domain.payment_identity import gateway_key_of


def result(payment: str, offset: int, status: str = "succeeded", **other: object) -> Result:
    """A first result of a 500 USD charge, but for `other`."""
    given: dict[str, object] = {
        "payment": payment,
        "status": status,
        "reason": None,
        "replayed": False,
        "resolves": False,
        "action": "charge",
        "amount_minor": 500,
        "currency": "USD",
        "gateway_ref": "ch_" + payment if status == "succeeded" else None,
        "source": (0, offset),
    }
    return Result(**(given | other))  # type: ignore[arg-type]


def good_books() -> Books:
    """Books without a problem: a charge with its replay, a decline, a settled unknown, a dead letter."""
    books = Books(log_start={0: 0})
    payments = ["u1/p1", "u1/p1", "u2/p2", "u2/p3", None]
    books.sent = {
        (0, offset): Sent(payment, 500 if payment else 0, "USD") for offset, payment in enumerate(payments)
    }
    books.results = [
        result("u1/p1", 0),
        result("u1/p1", 1, replayed=True),
        result("u2/p2", 2, "declined", reason="card_declined"),
        result("u2/p3", 3, "unknown", reason="timeout"),
        result("u2/p3", 3, resolves=True),
    ]
    books.dead[0, 4] = 1
    books.ledger = [charge("u1/p1"), charge("u2/p3"), charge("u2/p2", "failed")]
    for one in books.results:
        user, _, payment_id = one.payment.partition("/")
        books.metrics[payment_id, one.status, one.replayed] += 1
        books.states[user] = after(
            books.states.get(user), user_id=user, status=one.status, amount_minor=one.amount_minor,
            currency=one.currency, replayed=one.replayed, payment_id=payment_id,
        )  # fmt: skip
        if not one.replayed:
            books.entries[one.payment] = Entry(one.status, 500, "USD", one.gateway_ref)
    return books


def charge(payment: str, status: str = "succeeded", amount_minor: int = 500, id: str = "") -> LedgerCharge:
    """The ledger's row of a payment."""
    user, _, payment_id = payment.partition("/")
    ref = gateway_key_of(user, "charge", payment_id)
    return LedgerCharge(id or "ch_" + payment, payment, ref, status, amount_minor, "USD")


def refund(payment: str, amount_minor: int, ref: bool = True, **other: object) -> LedgerRefund:
    """The gateway's row of a refund of u1's charge; without `ref` it was made there."""
    user, _, payment_id = payment.partition("/")
    given: dict[str, object] = {
        "id": "re_" + payment, "payment": payment, "charge": "ch_u1/p1", "status": "succeeded",
        "ref": gateway_key_of(user, "refund", payment_id) if ref else None, "amount_minor": amount_minor,
        "currency": "USD",
    }  # fmt: skip
    return LedgerRefund(**(given | other))  # type: ignore[arg-type]


def books_with_refunds() -> Books:
    """A charge of 500: 200 refunded by an event, 100 at the gateway, 50 disputed, then won."""
    books = Books(log_start={0: 0})
    books.sent = {(0, 0): Sent("u1/p1", 500, "USD"), (0, 1): Sent("u1/r1", 200, "USD")}
    of: dict[str, Any] = {"refund_of": "p1", "action": "refund"}
    made = of | {"external": True, "source": None}
    books.results = [
        result("u1/p1", 0),
        result("u1/r1", 1, amount_minor=200, gateway_ref="re_u1/r1", **of),
        result("u1/x1_a", 0, amount_minor=100, gateway_ref="re_u1/x1_a", **made),
        result("u1/x1_d", 0, amount_minor=50, gateway_ref="dp_1", reason="dispute", **made),
        result(
            "u1/x1_w", 0, amount_minor=50, gateway_ref="dp_1", reason="dispute_won",
            **made | {"action": "charge"},
        ),
    ]  # fmt: skip
    books.ledger = [charge("u1/p1")]
    books.refunds = [
        refund("u1/r1", 200), refund("u1/x1_a", 100, ref=False), refund("u1/r0", 500, status="failed"),
    ]  # fmt: skip
    for one in books.results:
        user, _, payment_id = one.payment.partition("/")
        books.metrics[payment_id, one.status, one.replayed] += 1
        books.states[user] = after(
            books.states.get(user), user_id=user, status=one.status, amount_minor=one.amount_minor,
            currency=one.currency, replayed=one.replayed, payment_id=payment_id, action=one.action,
        )  # fmt: skip
        refunded = 300 if one.payment == "u1/p1" else 0
        books.entries[one.payment] = Entry(one.status, one.amount_minor, "USD", one.gateway_ref, refunded)
    return books
