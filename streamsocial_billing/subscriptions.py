"""Subscriptions inside units: carries out orders, sends what is due, takes in what came of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from streamsocial_billing import renewal
from streamsocial_billing.books import Books, now_ms
from streamsocial_billing.commands import Command, OnCommand
from streamsocial_billing.decision import DEDUP_RETENTION_MS
from streamsocial_billing.events import (
    MAX_AHEAD_MS,
    BadInput,
    Nudge,
    PaymentEvent,
    requested_metric,
)
from streamsocial_billing.exactly_once import Event, Topic
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.periods import INTERVALS, first_from, start_of
from tables.payments import PaymentEntry, SmallEntry, is_observed
from tables.subscriptions import Subscription, subscription_key

logger = logging.getLogger(__name__)

RENEWED: Final = frozenset({"subscription", "gift"})
MAX_PERIODS: Final = 1_200
LATEST_MS: Final = 4_102_444_800_000
"""The year 2100: a later start is a mistake of units."""
CHANGED_AFTER: Final = "the subscription is over: order a new one, under a new id"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is ordered: the details of `subscribe`.

    subscription_id  1-64 of A-Z a-z 0-9 _ -, unique per user for ever
    product          `subscription` or `gift`
    amount_minor, currency, gateway, payment_method  as in a PaymentEvent
    interval         `day`, `week`, `month`, `year`
    starts_at        ms since the epoch, the anchor of all periods; None: the moment of the order
    periods          how many are paid, then it ends; None: until it is cancelled
    """

    subscription_id: str
    amount_minor: int
    currency: str
    payment_method: str
    gateway: str = "simulated"
    product: str = "subscription"
    interval: str = "month"
    starts_at: int | None = None
    periods: int | None = None

    @classmethod
    def of(cls, details: Mapping[str, Any], *, user_id: str, now_ms: int) -> Terms:
        """Read the details of an order; raises BadInput for all that could not be paid later."""
        _refuse_unknown(details, frozenset(cls.__dataclass_fields__))
        subscription_id = _checked_id(details, user_id)
        interval = details.get("interval") or "month"
        if not isinstance(interval, str) or interval not in INTERVALS:
            raise BadInput("unknown_interval", f"interval is none of {', '.join(sorted(INTERVALS))}")
        starts_at = _whole(details, "starts_at", 0, LATEST_MS)
        product = details.get("product") or "subscription"
        business_ref = f"sub:{subscription_id}:2000-01-01"
        payment = _payment({**details, "product": product}, user_id, business_ref, now_ms)
        if payment.product not in RENEWED:
            raise BadInput("unknown_product", f"{payment.product} is no product that is renewed")
        return cls(
            subscription_id, payment.amount_minor, payment.currency, payment.payment_method, payment.gateway,
            payment.product, interval, starts_at, _whole(details, "periods", 1, MAX_PERIODS),
        )  # fmt: skip

    def digest(self) -> str:
        """Hex SHA-256: the same order sent twice is one subscription."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def begun(self, ordered_at: int, at_ms: int) -> Subscription:
        """The subscription at its beginning; of a start in the past only the day counts."""
        anchor = ordered_at if self.starts_at is None else self.starts_at
        return {
            "product": self.product, "amount_minor": self.amount_minor, "currency": self.currency,
            "gateway": self.gateway, "payment_method": self.payment_method, "interval": self.interval,
            "anchor": anchor, "periods_left": self.periods, "state": "active", "reason": None,
            "period": (period := first_from(anchor, self.interval, ordered_at)), "attempt": 0,
            "due_amount_minor": None, "first_declined_at": None, "dunning_step": 0,
            "next_at": start_of(anchor, self.interval, period), "pending": None, "ends_at": None,
            "until_paid_end": False, "terms": self.digest(), "created_at": at_ms, "changed_at": at_ms,
        }  # fmt: skip


class Subscriptions:
    """Everything that happens to subscriptions; each call is inside a unit of the subscription's user."""

    def __init__(
        self, books: Books, table: Any, payments: Topic, gateways: Mapping[str, Gateway],
        dunning_days: tuple[int, ...],
    ) -> None:  # fmt: skip
        self._books = books
        self._gateways = gateways
        self._table = table
        self._payments = payments
        self._dunning_days = dunning_days

    def commands(self) -> dict[str, OnCommand]:
        """What carries out which command."""
        return {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "change-plan": self._change_plan,
            "update-payment-method": self._update_payment_method,
        }

    # -- what is due

    async def nudged(self, user_id: str, subscription_id: str, at_ms: int) -> None:
        """Send the payment that is due, if one is; a lost or doubled nudge does no harm."""
        sub = self._get(user_id, subscription_id)
        if sub is not None and renewal.is_due(sub, at_ms):
            self._send(user_id, subscription_id, sub, at_ms)

    def _send(self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> None:
        """The next payment, with its metric and the change of the subscription: one unit."""
        gateway = self._gateways.get(sub["gateway"])
        if sub["pending"] is not None:
            self._send_again(user_id, subscription_id, sub, at_ms)
        elif gateway is None:  # it would be refused without a trace: it waits for its gateway here
            logger.error("%s/%s waits: gateway %s is not configured", user_id, subscription_id, sub["gateway"])
            self._put(user_id, subscription_id, renewal.looked_at_again(sub, at_ms))
        else:
            changed = renewal.sent(user_id, subscription_id, sub, at_ms)
            self._emit(user_id, changed, at_ms)
            self._put(user_id, subscription_id, changed)

    def _send_again(self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> None:
        """What was sent an hour ago has no outcome: the same event once more, as long as that is safe."""
        pending = sub["pending"]
        if pending is None:
            raise ValueError("no payment is under way")
        entry = self._books.entry(user_id, pending["payment_id"])
        if entry is not None and not is_observed(entry):
            self._answered_unseen(user_id, subscription_id, sub, entry, at_ms)
            return
        gateway = self._gateways.get(pending["gateway"])
        if gateway is not None and not renewal.may_send_again(sub, at_ms, gateway.traits):
            logger.error(
                "%s/%s: payment %s has no outcome. Unless one comes, see whether the gateway has it, then "
                "submit it by hand", user_id, subscription_id, pending["payment_id"],
            )  # fmt: skip
            self._put(user_id, subscription_id, renewal.looked_at_again(sub, None))
            return
        if gateway is not None:
            logger.warning("%s/%s: %s is sent again", user_id, subscription_id, pending["payment_id"])
            self._emit(user_id, sub, at_ms)
        self._put(user_id, subscription_id, renewal.looked_at_again(sub, at_ms))

    def _emit(self, user_id: str, sub: Subscription, at_ms: int) -> None:
        payment = renewal.event_of(user_id, sub, at_ms)
        self._payments.put_into_unit(user_id.encode(), payment.to_bytes())
        self._books.metrics.put_into_unit(payment.product.encode(), requested_metric(payment, at_ms))

    def _answered_unseen(
        self, user_id: str, subscription_id: str, sub: Subscription, entry: Any, at_ms: int
    ) -> None:
        """What we sent has an outcome of which we were not told: a caller had used its id before."""
        logger.error("%s/%s: the id of its payment was used by a caller", user_id, subscription_id)
        if entry["business_ref"] == renewal.business_ref_of(subscription_id, sub):
            self.learn(user_id, _payment_id(sub), entry, at_ms)
        else:
            self._put(user_id, subscription_id, renewal.not_ours(sub, at_ms))

    # -- what came of it

    def learn(self, user_id: str, payment_id: str, entry: PaymentEntry | SmallEntry, at_ms: int) -> None:
        """Take in a stored outcome (a settling.Hook): does it concern a subscription?"""
        subscription_id = renewal.subscription_of(entry["business_ref"])
        if subscription_id is None or entry["action"] != "charge":
            return
        sub = self._get(user_id, subscription_id)
        if sub is None:
            return
        other = entry["conflicts_with"]
        changed = renewal.after_outcome(
            subscription_id, sub, payment_id, entry, at_ms=at_ms, dunning_days=self._dunning_days,
            holder=None if other is None else self._books.entry(user_id, other),
        )  # fmt: skip
        if changed is None:
            return
        self._put(user_id, subscription_id, changed)
        _tell(user_id, subscription_id, sub, changed, payment_id, entry)

    # -- orders

    async def _subscribe(self, event: Event, command: Command) -> None:
        at_ms, user_id = now_ms(), _user_of(command)
        terms = Terms.of(command.details, user_id=user_id, now_ms=at_ms)
        known = self._get(user_id, terms.subscription_id)
        if known is not None:
            if known["terms"] != terms.digest():
                raise BadInput("subscription_differs", f"{terms.subscription_id} exists with other terms")
            return
        if command.at > at_ms + MAX_AHEAD_MS:
            raise BadInput("requested_in_future", f"the order is of {command.at}, over 5 min after {at_ms}")
        if at_ms - command.at > DEDUP_RETENTION_MS:
            raise BadInput("expired", f"the order is of {command.at}, too long before {at_ms}")
        self._keep(user_id, terms.subscription_id, terms.begun(command.at, at_ms), at_ms)

    async def _unsubscribe(self, event: Event, command: Command) -> None:
        at_once = command.details.get("at_once", False)
        user_id, subscription_id, sub = self._ordered(command, {"at_once"})
        if type(at_once) is not bool:
            raise BadInput("wrong_type", "at_once is not a boolean")
        at_ms = now_ms()
        self._put(user_id, subscription_id, renewal.cancelled(sub, at_once=at_once, at_ms=at_ms))

    async def _change_plan(self, event: Event, command: Command) -> None:
        user_id, subscription_id, sub = self._ordered(command, {"amount_minor"}, alive=True)
        at_ms = now_ms()
        amount = _like(sub, user_id, command.details, "amount_minor", at_ms).amount_minor
        self._put(user_id, subscription_id, renewal.with_amount(sub, amount, at_ms))

    async def _update_payment_method(self, event: Event, command: Command) -> None:
        user_id, subscription_id, sub = self._ordered(command, {"payment_method", "gateway"}, alive=True)
        at_ms = now_ms()
        payment = _like(sub, user_id, command.details, "payment_method", at_ms)
        changed = renewal.with_method(sub, payment.payment_method, payment.gateway, at_ms)
        self._keep(user_id, subscription_id, changed, at_ms)

    def _ordered(
        self, command: Command, names: set[str], *, alive: bool = False
    ) -> tuple[str, str, Subscription]:
        """The subscription that a command is about; raises BadInput if there is none such."""
        user_id = _user_of(command)
        _refuse_unknown(command.details, names | {"subscription_id"})
        subscription_id = _checked_id(command.details, user_id)
        sub = self._get(user_id, subscription_id)
        if sub is None:
            raise BadInput("unknown_subscription", f"{user_id} has no subscription {subscription_id}")
        if alive and sub["state"] in renewal.OVER:
            raise BadInput("subscription_over", CHANGED_AFTER)
        return user_id, subscription_id, sub

    def _keep(self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> None:
        """Store it; what is due at once does not wait for the scheduler."""
        if renewal.is_due(sub, at_ms) and sub["pending"] is None:
            self._send(user_id, subscription_id, sub, at_ms)
        else:
            self._put(user_id, subscription_id, sub)

    def _get(self, user_id: str, subscription_id: str) -> Subscription | None:
        found: Subscription | None = self._table.get(subscription_key(user_id, subscription_id))
        return found

    def _put(self, user_id: str, subscription_id: str, sub: Subscription) -> None:
        self._table[subscription_key(user_id, subscription_id)] = sub


def _tell(
    user_id: str, subscription_id: str, before: Subscription, after: Subscription, payment_id: str,
    entry: PaymentEntry | SmallEntry,
) -> None:  # fmt: skip
    """The log lines that somebody may look for."""
    if entry["reason"] == "duplicate_business_ref":
        logger.warning(
            "%s/%s: period %d has another payment, %s", user_id, subscription_id, before["period"],
            entry["conflicts_with"],
        )  # fmt: skip
    if before["state"] == "cancelled" and entry["status"] == "succeeded" and not before["until_paid_end"]:
        logger.error(
            "%s/%s: %s was charged after it was cancelled: refund it", user_id, subscription_id, payment_id
        )
    if before["state"] != after["state"]:
        logger.info(
            "%s/%s is %s (%s)", user_id, subscription_id, after["state"], after["reason"] or "-"
        )  # fmt: skip


def _payment_id(sub: Subscription) -> str:
    return "" if sub["pending"] is None else sub["pending"]["payment_id"]


def _user_of(command: Command) -> str:
    if command.user_id is None:
        raise BadInput("missing_field", f"{command.command} needs a user_id")
    return command.user_id


def _refuse_unknown(details: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    unknown = sorted(details.keys() - known)
    if unknown:
        raise BadInput("unknown_field", f"{unknown[0][:40]!a} is no part of this order")


def _checked_id(details: Mapping[str, Any], user_id: str) -> str:
    """The subscription_id, checked as any other id."""
    if details.get("subscription_id") is None:
        raise BadInput("missing_field", "subscription_id is missing")
    named = orjson.dumps({"user_id": user_id, "payment_id": details["subscription_id"]})
    return Nudge.from_bytes(named).payment_id


def _whole(details: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = details.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise BadInput("wrong_type", f"{name} is not a whole number from {low} to {high}")
    return value


def _payment(details: Mapping[str, Any], user_id: str, business_ref: str, at_ms: int) -> PaymentEvent:
    """A payment of these details, as it would be checked on its way; raises BadInput."""
    names = ("product", "amount_minor", "currency", "payment_method", "gateway")
    data = {name: details[name] for name in names if details.get(name) is not None}
    data |= {"payment_id": "r1_", "user_id": user_id, "business_ref": business_ref}
    return PaymentEvent.from_mapping(data, now_ms=at_ms, default_gateway="simulated")


def _like(
    sub: Subscription, user_id: str, details: Mapping[str, Any], needed: str, at_ms: int
) -> PaymentEvent:
    """A payment of a subscription with some of its terms changed; raises BadInput without the needed one."""
    if details.get(needed) is None:
        raise BadInput("missing_field", f"{needed} is missing")
    return _payment({**sub, **details}, user_id, "sub:x:2000-01-01", at_ms)
