"""What moved: by results, by the gateway's lists, by the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from streamsocial_billing.audit.books import Books, LedgerCharge, LedgerRefund, Result
from streamsocial_billing.domain.payment_identity import gateway_key_of

DISPUTES: Final = frozenset({"dispute", "dispute_won"})
"""Reasons of results that are of the gateway's making, yet in none of its lists."""
REFUND_FAILED: Final = "refund_failed"
"""Reason of the result that brings back what a refund took which failed after it had succeeded."""


def not_compared(books: Books, action: str) -> Counter[str]:
    """Minor units by currency that results say moved at gateways whose lists were not read."""
    moved: Counter[str] = Counter()
    for one in books.results:
        if one.moved and one.action == action and one.gateway not in books.listed:
            moved[one.currency] += one.amount_minor
    return moved


def moved_ahead(books: Books, action: str) -> Counter[str]:
    """Minor units by currency that a gateway moved for payments that wait for their result or are open."""
    pending, moved = books.pending(), Counter[str]()
    known = {reference_of(one) for one in books.results if one.moved}
    for row in charged(books) if action == "charge" else refunded(books):
        if row.payment in pending and row.ref not in known:
            moved[row.currency] += row.amount_minor
    return moved


def money_per_currency(books: Books, action: str = "charge") -> dict[str, tuple[int, int, int]]:
    """Minor units charged (or, `action` refund, given back) by results, the gateway's ledger, the tables."""
    sides: tuple[Counter[str], Counter[str], Counter[str]] = Counter(), Counter(), Counter()
    failed = failed_later(books)
    for one in books.results:
        if one.moved and one.action == action:
            sides[0][one.currency] += one.amount_minor
            disputed = one.external and one.reason in DISPUTES and one.gateway in books.listed
            if disputed or (one.gateway_ref in failed and (action == "refund" or came_back(one))):
                sides[1][one.currency] += one.amount_minor
    for row in charged(books) if action == "charge" else refunded(books):
        sides[1][row.currency] += row.amount_minor
    for state in books.states.values():
        moved = money_of(state)
        sides[2].update({currency: amount for (currency, of), amount in moved.items() if of == action})
    currencies = sorted({currency for side in sides for currency in side})
    return {one: (sides[0][one], sides[1][one], sides[2][one]) for one in currencies}


def given_back_by_charge(books: Books) -> Counter[str]:
    """By the charge (user_id/payment_id), minor units that went back for good."""
    back: Counter[str] = Counter()
    for one in books.results:
        if one.moved and one.refund_of is not None:
            charge = f"{one.payment.partition('/')[0]}/{one.refund_of}"
            back[charge] += one.amount_minor if one.action == "refund" else -one.amount_minor
    return back


def came_back(one: Result) -> bool:
    """True for what a refund brought back that failed after it had succeeded."""
    return one.external and one.moved and one.reason == REFUND_FAILED


def failed_later(books: Books) -> set[str | None]:
    """The gateway's ids of the refunds that failed after they had succeeded, if the gateway says so too."""
    succeeded = {row.id for row in refunded(books)}
    back = (one for one in books.results if came_back(one) and one.gateway in books.listed)
    return {one.gateway_ref for one in back} - succeeded


def charged(books: Books) -> Iterator[LedgerCharge]:
    """The gateway's charges that took money."""
    return (charge for charge in books.ledger if charge.status == "succeeded")


def refunded(books: Books) -> Iterator[LedgerRefund]:
    """The gateway's refunds that gave money back, and have not failed since."""
    return (refund for refund in books.refunds if refund.status == "succeeded")


def money_of(state: Any) -> dict[tuple[str, str], int]:
    """What the table says of a user: minor units by currency, action."""
    moved = {}
    for currency, one in state["money"].items():
        moved[currency, "charge"] = one["charged_minor"]
        moved[currency, "refund"] = one.get("refunded_minor", 0)
    return {which: amount for which, amount in moved.items() if amount}


def reference_of(result: Result) -> str:
    """The reference under which the gateway has it."""
    user_id, _, payment_id = result.payment.partition("/")
    return gateway_key_of(user_id, result.action, payment_id)
