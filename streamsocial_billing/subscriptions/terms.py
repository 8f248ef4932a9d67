"""What an order of a subscription may say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from streamsocial_billing.domain.events import PaymentEvent, RetryTrigger
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.subscriptions.periods import INTERVALS, first_from, start_of
from tables.subscriptions import Subscription

RENEWED: Final = frozenset({"subscription", "gift"})
MAX_PERIODS: Final = 1_200
LATEST_MS: Final = 4_102_444_800_000
"""The year 2100: a later start is a mistake of units."""


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
    gateway: str
    product: str = "subscription"
    interval: str = "month"
    starts_at: int | None = None
    periods: int | None = None

    @classmethod
    def of(cls, details: Mapping[str, Any], *, user_id: str, now_ms: int) -> Terms:
        """Read the details of an order; raises BadInput for all that could not be paid later."""
        refuse_unknown(details, frozenset(cls.__dataclass_fields__))
        subscription_id = checked_id(details, user_id)
        interval = details.get("interval") or "month"
        if not isinstance(interval, str) or interval not in INTERVALS:
            raise BadInput("unknown_interval", f"interval must be one of {', '.join(sorted(INTERVALS))}")
        starts_at = _whole(details, "starts_at", 0, LATEST_MS)
        product = details.get("product") or "subscription"
        business_ref = f"sub:{subscription_id}:2000-01-01"
        payment = payment_of({**details, "product": product}, user_id, business_ref, now_ms)
        if payment.product not in RENEWED:
            raise BadInput("unknown_product", f"{payment.product} is not a product that can be renewed")
        return cls(
            subscription_id=subscription_id, amount_minor=payment.amount_minor, currency=payment.currency,
            payment_method=payment.payment_method, gateway=payment.gateway, product=payment.product,
            interval=interval, starts_at=starts_at, periods=_whole(details, "periods", 1, MAX_PERIODS),
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


def check_order(command: Command) -> None:
    """Refuse an order that could never be carried out, whatever the tables hold; raises BadInput."""
    user_id, details, at_ms = user_of(command), command.details, command.at
    if command.command == "subscribe":
        Terms.of(details, user_id=user_id, now_ms=at_ms)
        return
    checked_id(details, user_id)
    sample: dict[str, Any] = {"product": "gift", "amount_minor": 1, "currency": "USD", "payment_method": "pm"}
    sample["gateway"] = "simulated"  # a change without one stays where its subscription is
    payment_of(sample | dict(details), user_id, "sub:x:2000-01-01", at_ms)


def user_of(command: Command) -> str:
    """Whom the order is about; raises BadInput if it is about nobody."""
    if command.user_id is None:
        raise BadInput("missing_field", f"{command.command} needs a user_id")
    return command.user_id


def refuse_unknown(details: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    """A misspelt detail must not be passed over; raises BadInput."""
    unknown = sorted(details.keys() - known)
    if unknown:
        raise BadInput("unknown_field", f"{unknown[0][:40]!a} does not belong in this order")


def checked_id(details: Mapping[str, Any], user_id: str) -> str:
    """The subscription_id, checked as any other id, with the user's; raises BadInput."""
    if details.get("subscription_id") is None:
        raise BadInput("missing_field", "subscription_id is missing")
    named = orjson.dumps({"user_id": user_id, "payment_id": details["subscription_id"]})
    try:
        return RetryTrigger.from_bytes(named).payment_id
    except BadInput as bad:
        raise BadInput(bad.reason, bad.detail.replace("payment_id", "subscription_id")) from None


def _whole(details: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = details.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise BadInput("wrong_type", f"{name} is not a whole number from {low} to {high}")
    return value


def payment_of(details: Mapping[str, Any], user_id: str, business_ref: str, at_ms: int) -> PaymentEvent:
    """A payment of these details, as it would be checked on its way; raises BadInput."""
    names = ("product", "amount_minor", "currency", "payment_method", "gateway")
    data = {name: details[name] for name in names if details.get(name) is not None}
    data |= {"payment_id": "r1_", "user_id": user_id, "business_ref": business_ref}
    return PaymentEvent.from_mapping(data, now_ms=at_ms)


def changed_payment(
    sub: Subscription, user_id: str, details: Mapping[str, Any], needed: str, at_ms: int
) -> PaymentEvent:
    """A payment of a subscription with some of its terms changed; raises BadInput without the needed one."""
    if details.get(needed) is None:
        raise BadInput("missing_field", f"{needed} is missing")
    return payment_of({**sub, **details}, user_id, "sub:x:2000-01-01", at_ms)
