"""What becomes of a subscription, decided without doing it.

Pure, like `decision`: no await, no I/O, no clock; nothing that comes in is changed. At most one payment of a
subscription is under way; a period follows only after the one before it was paid; a payment's id is a
function of user, period, attempt. From these three it follows that no period is charged twice or skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED, Traits
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.subscriptions.periods import DAY_MS, first_from, index_at, name_of, start_of
from tables.payments import Entry, PaymentEntry, SmallEntry
from tables.subscriptions import Pending, Subscription

RENEWAL_VERSION: Final = 1
LOOK_AGAIN_MS: Final = 3_600_000
"""How long a sent payment may be without an entry before the same event is sent again; how long a renewal
waits for a gateway that is not configured."""
OVER: Final = frozenset({"cancelled", "ended"})
USELESS: Final = frozenset({"invalid_request", "amount_below_minimum", "amount_above_maximum"})
"""Refusals of the request itself: the same one again meets the same answer."""
_PREFIX: Final = "sub:"


def renewal_id(user_id: str, business_ref: str, attempt: int) -> str:
    """The payment_id of an attempt: `r1_` + 40 hex of SHA-256, the parts joined as a JSON list.

    Pinned by tests: another id for the same attempt is a second charge.
    """
    joined = orjson.dumps([RENEWAL_VERSION, user_id, business_ref, attempt])
    return f"r{RENEWAL_VERSION}_" + hashlib.sha256(joined).hexdigest()[:40]


def business_ref_of(subscription_id: str, sub: Subscription) -> str:
    """What the payments of the current period are for: `sub:42:2026-12`."""
    return f"{_PREFIX}{subscription_id}:{name_of(sub['anchor'], sub['interval'], sub['period'])}"


def subscription_of(business_ref: str | None) -> str | None:
    """The subscription_id in a business_ref, None if it names no subscription."""
    if business_ref is None or not business_ref.startswith(_PREFIX):
        return None
    subscription_id, colon, _ = business_ref.removeprefix(_PREFIX).partition(":")
    return subscription_id if colon else None


def is_due(sub: Mapping[str, Any] | None, at_ms: int) -> bool:
    """True if a trigger has to act now; triggers may be lost or doubled, so each one asks."""
    return sub is not None and sub["next_at"] is not None and sub["next_at"] <= at_ms


# ---- payments go out


def sent(user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> Subscription:
    """The subscription with the next attempt for its period under way; nothing may be under way before."""
    changed, business_ref = sub.copy(), business_ref_of(subscription_id, sub)
    changed["attempt"] = sub["attempt"] + 1
    amount = sub["due_amount_minor"]
    changed["due_amount_minor"] = amount = sub["amount_minor"] if amount is None else amount
    changed["pending"] = Pending(
        payment_id=renewal_id(user_id, business_ref, changed["attempt"]), business_ref=business_ref,
        ours=True, status="sent", sent_at=at_ms, amount_minor=amount, gateway=sub["gateway"],
        payment_method=sub["payment_method"],
    )  # fmt: skip
    changed["next_at"] = at_ms + LOOK_AGAIN_MS
    return changed


def looked_at_again(sub: Subscription, at_ms: int | None) -> Subscription:
    """The subscription as it is, to be looked at in an hour; with None not before something happens."""
    changed = sub.copy()
    changed["next_at"] = None if at_ms is None else at_ms + LOOK_AGAIN_MS
    return changed


def may_send_again(sub: Subscription, at_ms: int, traits: Traits) -> bool:
    """True while the gateway surely remembers a call that a worker may have made just before it died.

    Half of its window: a record that is sent again counts its age from its own append time.
    """
    return at_ms - _under_way(sub)["sent_at"] <= traits.key_safe_window_s * 500


def event_of(user_id: str, sub: Subscription, at_ms: int) -> PaymentEvent:
    """The payment under way as an event that is asked for now."""
    pending = _under_way(sub)
    return PaymentEvent(
        payment_id=pending["payment_id"], user_id=user_id, product=sub["product"],
        amount_minor=pending["amount_minor"], currency=sub["currency"],
        payment_method=pending["payment_method"], gateway=pending["gateway"],
        business_ref=pending["business_ref"], requested_at=at_ms,
    )  # fmt: skip


def not_ours(sub: Subscription, at_ms: int) -> Subscription:
    """Nothing is under way any more, nor was anything declined: another attempt may go out now."""
    changed = sub.copy()
    changed["pending"] = None
    changed["next_at"] = None if sub["state"] in OVER else at_ms
    return changed


# ---- outcomes come in


def after_outcome(
    subscription_id: str, sub: Subscription, payment_id: str, entry: PaymentEntry | SmallEntry, *,
    at_ms: int, dunning_days: Sequence[int], holder: Entry | None = None,
) -> Subscription | None:  # fmt: skip
    """The subscription after a charge with one of its business_refs was stored; None: it says nothing new.

    `holder`: of a payment refused as duplicate_business_ref, the entry of the one that holds it.
    """
    pending = sub["pending"]
    ours = pending is not None and pending["payment_id"] == payment_id
    if not ours:
        # somebody else's payment for this very period, on a web page say, is as good as ours
        this_period = entry["business_ref"] == business_ref_of(subscription_id, sub)
        pays = entry["status"] == "succeeded" and this_period and sub["state"] not in OVER
        return paid(sub, at_ms) if pays else None
    if entry["status"] in OPEN:
        if "authentication" in entry and _under_way(sub)["ours"]:
            return _wants_customer(sub, at_ms, dunning_days)
        return None if waits_for_customer(sub) else _waiting(sub, entry["status"])
    if entry["status"] == "succeeded":
        return paid(sub, at_ms)
    if not _under_way(sub)["ours"]:
        return not_ours(sub, at_ms)
    if entry["reason"] == "duplicate_business_ref":
        return _held(sub, entry["conflicts_with"], holder, at_ms)
    soft = "soft" in entry and entry["soft"]
    if waits_for_customer(sub):
        return _customer_did_not_come(sub, entry["reason"], at_ms, dunning_days)
    if soft or (entry["status"] == "failed" and entry["reason"] not in USELESS):
        return _declined_softly(sub, entry["reason"], at_ms, dunning_days)
    return _declined(sub, entry["reason"], at_ms)


def paid(sub: Subscription, at_ms: int) -> Subscription:
    """The current period is paid: the next one is due when it begins."""
    changed = _settled(sub, at_ms)
    changed["period"] = sub["period"] + 1
    if sub["state"] == "unpaid":  # by another's payment; what it missed since was not served
        changed["period"] = max(changed["period"], first_from(sub["anchor"], sub["interval"], at_ms))
    changed["attempt"] = 0
    changed["due_amount_minor"] = None
    changed["reason"] = None
    left = sub["periods_left"]
    changed["periods_left"] = left if left is None else left - 1
    begins = start_of(sub["anchor"], sub["interval"], changed["period"])
    if sub["state"] in OVER:
        if sub["until_paid_end"]:
            changed["ends_at"] = begins
        return changed
    if changed["periods_left"] == 0:
        changed["state"], changed["ends_at"] = "ended", begins
        return changed
    changed["state"], changed["next_at"] = "active", begins
    return changed


def _held(sub: Subscription, other: str | None, holder: Entry | None, at_ms: int) -> Subscription:
    """Another payment has the period: it is paid by that one, or waits for its outcome."""
    if holder is not None and holder["status"] == "succeeded":
        return paid(sub, at_ms)
    if other is not None and holder is not None and holder["status"] in OPEN:
        return _waiting(sub, holder["status"], other)
    return not_ours(sub, at_ms)


def _declined_softly(
    sub: Subscription, reason: str | None, at_ms: int, dunning_days: Sequence[int]
) -> Subscription:
    """Another try at the next day of dunning that lies ahead; at once if a new method came meanwhile."""
    if sub["state"] in OVER or _has_new_method(sub):
        return _declined(sub, reason, at_ms)
    first = sub["first_declined_at"] or at_ms
    step, again = _next_day(sub, first, at_ms, dunning_days)
    if again is None:
        return _declined(sub, reason, at_ms)
    changed = _settled(sub, at_ms)
    changed["state"], changed["reason"], changed["next_at"] = "past_due", reason, again
    changed["first_declined_at"], changed["dunning_step"] = first, step
    return changed


def _wants_customer(
    sub: Subscription, at_ms: int, dunning_days: Sequence[int]
) -> Subscription | None:  # fmt: skip
    """Its payment waits until the customer comes: past due; on the next day of dunning it is ended first.

    None: that is known.
    """
    if waits_for_customer(sub):
        return None
    changed = _waiting(sub, AUTHENTICATION_REQUIRED)
    if sub["state"] in OVER:
        return changed
    first = sub["first_declined_at"] or at_ms
    changed["state"], changed["reason"] = "past_due", AUTHENTICATION_REQUIRED
    changed["first_declined_at"], changed["changed_at"] = first, at_ms
    step, changed["next_at"] = _next_day(sub, first, at_ms, dunning_days)
    changed["dunning_step"] = step
    return changed


def waits_for_customer(sub: Subscription) -> bool:
    """True while the payment under way waits for its customer."""
    pending = sub["pending"]
    return pending is not None and pending["status"] == AUTHENTICATION_REQUIRED


def _customer_did_not_come(
    sub: Subscription, reason: str | None, at_ms: int, dunning_days: Sequence[int]
) -> Subscription:
    """The intent is canceled: the next try comes on its day of dunning, now where that day has come."""
    step = sub["dunning_step"]
    if sub["state"] in OVER or sub["next_at"] is None or _has_new_method(sub) or step > len(dunning_days):
        return _declined(sub, reason, at_ms)
    first = sub["first_declined_at"] or at_ms
    changed = _settled(sub, at_ms)
    changed["state"], changed["reason"] = "past_due", reason
    changed["next_at"] = max(at_ms, first + dunning_days[step - 1] * DAY_MS)
    changed["first_declined_at"], changed["dunning_step"] = first, step
    return changed


def _next_day(
    sub: Subscription, first: int, at_ms: int, dunning_days: Sequence[int]
) -> tuple[int, int | None]:
    """How many days of dunning are used up with the next one that lies ahead, and when that is."""
    for step in range(sub["dunning_step"], len(dunning_days)):
        again = first + dunning_days[step] * DAY_MS
        if again > at_ms:
            return step + 1, again
    return len(dunning_days), None


def _declined(sub: Subscription, reason: str | None, at_ms: int) -> Subscription:
    """No try comes by itself; a new payment method that came meanwhile is tried at once."""
    changed = _settled(sub, at_ms)
    if sub["state"] in OVER:
        return changed
    changed["state"], changed["reason"] = "unpaid", reason
    if _has_new_method(sub):
        changed["state"], changed["next_at"] = "past_due", at_ms
    return changed


def _has_new_method(sub: Subscription) -> bool:
    pending = _under_way(sub)
    used = pending["payment_method"], pending["gateway"]
    return used != (sub["payment_method"], sub["gateway"])


def _settled(sub: Subscription, at_ms: int) -> Subscription:
    """Nothing under way, no dunning."""
    changed = sub.copy()
    changed["pending"] = changed["next_at"] = changed["first_declined_at"] = None
    changed["dunning_step"] = 0
    changed["changed_at"] = at_ms
    return changed


def _waiting(sub: Subscription, status: str, other: str | None = None) -> Subscription:
    """What is under way (`other`: another's payment) is open: nothing is sent before it is settled."""
    changed, pending = sub.copy(), _under_way(sub).copy()
    pending["status"] = status
    if other is not None:
        pending["payment_id"], pending["ours"] = other, False
    changed["pending"], changed["next_at"] = pending, None
    return changed


def _under_way(sub: Subscription) -> Pending:
    pending = sub["pending"]
    if pending is None:
        raise ValueError("no payment is under way")
    return pending


# ---- orders


def cancelled(sub: Subscription, *, at_once: bool, at_ms: int) -> Subscription:
    """No further period. What was sent cannot be called back: its outcome is still taken in."""
    if sub["state"] in OVER:
        return _cut_short(sub, at_ms) if at_once else sub
    changed, pending = sub.copy(), sub["pending"]
    paid_to = start_of(sub["anchor"], sub["interval"], sub["period"])
    changed["state"], changed["reason"], changed["next_at"] = "cancelled", None, None
    changed["until_paid_end"] = not at_once
    changed["ends_at"] = at_ms if at_once or sub["state"] != "active" else max(at_ms, paid_to)
    changed["pending"] = pending if pending is not None and pending["ours"] else None
    changed["changed_at"] = at_ms
    return changed


def _cut_short(sub: Subscription, at_ms: int) -> Subscription:
    """One that was cancelled, and lasts until what is paid for ends, ends now; any other stays as it is."""
    if sub["ends_at"] is None or sub["ends_at"] <= at_ms:
        return sub
    changed = sub.copy()
    changed["ends_at"], changed["until_paid_end"], changed["changed_at"] = at_ms, False, at_ms
    return changed


def with_amount(sub: Subscription, amount_minor: int, at_ms: int) -> Subscription:
    """Another price, from the next period on that was not tried yet."""
    changed = sub.copy()
    changed["amount_minor"], changed["changed_at"] = amount_minor, at_ms
    return changed


def with_method(sub: Subscription, payment_method: str, gateway: str, at_ms: int) -> Subscription:
    """Another payment method: what is past due is tried at once, dunning begins anew.

    An unpaid subscription goes on with the period that it is in now: those it missed were not served.
    """
    changed = sub.copy()
    changed["payment_method"], changed["gateway"], changed["changed_at"] = payment_method, gateway, at_ms
    if sub["pending"] is None and sub["state"] in ("past_due", "unpaid"):
        changed = _settled(changed, at_ms)
        changed["state"], changed["next_at"] = "past_due", at_ms
        now = index_at(sub["anchor"], sub["interval"], at_ms)
        if sub["state"] == "unpaid":
            changed["due_amount_minor"] = None
            if now > sub["period"]:
                changed["period"], changed["attempt"] = now, 0
    return changed
