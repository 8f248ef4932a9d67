"""The charge state of a user, as each result changes it.

Pure: nothing that comes in is changed.
"""

from __future__ import annotations

from typing import Final

from streamsocial_billing.domain.newer_fields import keeping
from streamsocial_billing.domain.results import ChargeResult
from tables.charges import (
    AnyState,
    ChargeState,
    KnownMoney,
    KnownPayment,
    KnownState,
    Money,
    RefundsApart,
)


def charge_state_after(state: ChargeState | None, result: ChargeResult) -> ChargeState:
    """The user's state after one more result; the same fold that an audit makes over `charge-results`.

    Only what succeeded and is no replay moves money.
    """
    counted = "replayed" if result.replayed else result.status
    before = _FIRST if state is None else state
    counts, money, last = before["counts"].copy(), before["money"].copy(), before["last_payment"]
    refunds = before["refund_counts"].copy() if "refund_counts" in before else {}
    counts[counted] = counts.get(counted, 0) + 1
    if result.action == "refund":
        refunds[counted] = refunds.get(counted, 0) + 1
    if result.status == "succeeded" and not result.replayed:
        had = money.get(result.currency) or Money(charged_minor=0, refunded_minor=0)
        moved = money[result.currency] = had.copy()
        moved["charged_minor" if result.action == "charge" else "refunded_minor"] += result.amount_minor
    if not result.replayed:
        last = {"payment_id": result.payment_id, "status": result.status, "at": result.processed_at}
    apart: RefundsApart = {"refund_counts": refunds}
    if "older_counts" in before or "refund_counts" not in before:
        apart["older_counts"] = before.get("older_counts", before["counts"]).copy()
    after: ChargeState = {
        "user_id": result.user_id, "money": money, "counts": counts, **apart, "last_payment": last
    }  # fmt: skip
    return after if before.keys() <= _KNOWN else keeping(before, after, ChargeState)


_FIRST: Final[ChargeState] = {
    "user_id": "", "money": {}, "counts": {}, "refund_counts": {}, "last_payment": None
}  # fmt: skip
_KNOWN: Final = frozenset(ChargeState.__annotations__)


# ---- the same of a row that holds what this release writes


def state_after(state: AnyState | None, result: ChargeResult) -> AnyState:
    """What `charge_state_after` says, faster; a test compares the two."""
    match state:
        case KnownState():
            before = state
        case None:
            before = _NEW
        case _:
            return charge_state_after(state, result)
    money, counts, refunds, last = before.money, before.counts, before.refund_counts, before.last_payment
    counted, is_charge = "replayed" if result.replayed else result.status, result.action == "charge"
    if not result.replayed:
        last = KnownPayment(result.payment_id, result.status, result.processed_at)
        if counted == "succeeded":
            currency = result.currency
            had = money[currency] if currency in money else _NO_MONEY
            charged, refunded = (result.amount_minor, 0) if is_charge else (0, result.amount_minor)
            moved = KnownMoney(had.charged_minor + charged, had.refunded_minor + refunded)
            money = {**money, currency: moved}
    if not is_charge:
        refunds = {**refunds, counted: refunds[counted] + 1 if counted in refunds else 1}
    counts = {**counts, counted: counts[counted] + 1 if counted in counts else 1}
    return KnownState(
        user_id=result.user_id, money=money, counts=counts, refund_counts=refunds,
        older_counts=before.older_counts, last_payment=last,
    )  # fmt: skip


_NO_MONEY: Final = KnownMoney(0, 0)
_NEW: Final = KnownState(user_id="", money={}, counts={}, refund_counts={}, last_payment=None)
