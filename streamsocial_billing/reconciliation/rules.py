"""What counts as late, as under way, as ours: the rules that tell a break from a difference in timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.money import CURRENCIES, is_amount
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.reconciliation.breaks import break_id

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Times in ms; `told_by(user_id)` is the moment up to which our books must know what the gateway did.

    as_of           the moment that ageing counts to
    since           the gateways' lists begin here; older payments are not looked for in them
    window          how far our leg and the gateway's may lie apart, one being only younger
    unknown_after   how long an outcome may be open
    observed_after  how long a payment may wait for its event
    settlement_days business days from a charge to its line in a settlement file
    accounts        of each gateway
    lags            consistency delay of each gateway's list, ms
    reach           where each gateway's list begins, if it does not go back for ever
    """

    as_of: int
    told_by: Callable[[str | None], int]
    since: int = 0
    window: int = 900_000
    unknown_after: int = DAY_MS
    observed_after: int = 30 * DAY_MS
    settlement_days: int = 2
    accounts: Mapping[str, str] = field(default_factory=dict)
    lags: Mapping[str, int] = field(default_factory=dict)
    reach: Mapping[str, int] = field(default_factory=dict)

    def listed_since(self, gateway: str) -> int:
        """What is older is not looked for in this gateway's list; 0: it is read from the beginning."""
        return max(self.since, self.reach.get(gateway, 0))

    def young(self, at: int, gateway: str) -> bool:
        """True for what may only not have reached the other side yet."""
        return at > self.as_of - max(self.window, self.lags.get(gateway, 0))

    def unsettled(self, created: int) -> bool:
        """True for a charge that should be in a settlement file by now."""
        return business_days_later(created, self.settlement_days) <= self.as_of


def business_days_later(at_ms: int, days: int) -> int:
    """The same time of day so many days later in UTC, Saturdays and Sundays not counted; no holidays."""
    when = datetime.fromtimestamp(at_ms / 1000, UTC)
    while days > 0:
        when += timedelta(days=1)
        days -= when.weekday() < 5
    return int(when.timestamp() * 1000)


def repair_event(
    rules: Rules, class_: str, legs: tuple[str, ...], row: Mapping[str, Any], *, status: str,
    user_id: str | None, payment_id: str | None, charge_id: str | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """The record that brings a movement of the gateway's list (`row` of `b`) into our books; None: it cannot.

    A movement that carries a reference of ours must carry the one that belongs to its user and payment.
    """
    ref = row["ref"]
    ours = ref is not None
    if user_id is None or not is_amount(row["amount"]) or row["currency"] not in CURRENCIES:
        return None
    if ours and (payment_id is None or ref != gateway_key_of(user_id, row["kind"], payment_id)):
        return None
    event = GatewayEvent(
        event_id=f"rec_{break_id(class_, legs)}", gateway=row["gateway"],
        account=rules.accounts.get(row["gateway"], ""), kind=row["kind"], status=status,
        gateway_ref=row["gateway_ref"], charge_ref=row["charge_ref"], ref=ref, user_id=user_id,
        payment_id=payment_id if ours else None, charge_id=charge_id, amount_minor=row["amount"],
        currency=row["currency"], occurred_at=row["created"], via="reconciliation",
        returned_minor=min(row["returned"], row["amount"])
        if (row["kind"], status) == ("dispute", "succeeded") else 0,
        intent=None if row["intent_charge"] is None else row["gateway_ref"],
        intent_charge=row["intent_charge"],
    )  # fmt: skip
    return event.as_json()
