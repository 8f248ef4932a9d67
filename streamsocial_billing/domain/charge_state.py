"""The charge state of a user, as each result changes it.

Pure: nothing that comes in is changed.
"""

from __future__ import annotations

from typing import Final

from streamsocial_billing.domain.newer_fields import keeping
from streamsocial_billing.domain.results import ChargeResult
from tables.charges import ChargeState, Money, RefundsApart


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
