"""What tests of subscriptions say over and over: the subscription 42 of the user u1."""

from typing import Any

import orjson
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import START_MS, OneTask
from support.orders import answers

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Ambiguous, Found
from streamsocial_billing.settings import PAYMENTS
from streamsocial_billing.subscriptions.periods import DAY_MS
from streamsocial_billing.subscriptions.renewal import renewal_id
from tables.subscriptions import Subscription

DAY_S = 24 * HOUR_S
OURS = renewal_id("u1", "sub:42:2025-12", 1)
"""The payment_id of its first payment."""


def subscribe(lab: OneTask, payment_method: str = "pm_card_visa", **details: Any) -> None:
    """Order the subscription 42 of the user u1, monthly from now."""
    lab.command("subscribe", **{
        "subscription_id": "42", "gateway": "simulated", "amount_minor": 999, "currency": "USD",
        "payment_method": payment_method, **details,
    })  # fmt: skip


def sub(lab: OneTask) -> Subscription:
    """The subscription as committed."""
    found: Subscription = lab.row("subscriptions", "u1/42")
    return found


def refs(lab: OneTask, status: str = "succeeded") -> list[str]:
    """The business_refs of the results with a status, in order."""
    return [one["business_ref"] for one in lab.results() if one["status"] == status]


def attempts(lab: OneTask) -> list[float]:
    """When payments were sent, days since the start."""
    sent = [orjson.loads(one.value)["requested_at"] for one in lab.sent(PAYMENTS)]
    return [round((at - START_MS) / DAY_MS, 1) for at in sent]


def days(lab: OneTask, count: int, looks: int = 1) -> None:
    """Let days pass; the timers look each day."""
    for _ in range(count):
        lab.wait(DAY_S)
        for _ in range(looks):
            lab.look()


def pay(lab: OneTask, payment_id: str, business_ref: str, payment_method: str = "pm_card_visa") -> None:
    """A caller's own payment for something."""
    lab.send(PaymentEvent(
        payment_id=payment_id, user_id="u1", product="subscription", amount_minor=999, currency="USD",
        payment_method=payment_method, gateway="simulated", business_ref=business_ref,
        requested_at=lab.now_ms,
    ))  # fmt: skip


def unknown(gateway: AskedGateway, *answers: Found) -> None:
    """The next call leaves a doubt that only questions can settle; they bring these answers."""
    gateway.script, gateway.found = [Ambiguous("http_500", ask_only=True)], list(answers)


def found(status: str, payment_id: str, *, soft: bool = False) -> Found:
    """What the gateway has under our reference."""
    return Found("ch_1", status, None, 999, "USD", "u1", payment_id, soft=soft)


def letters(lab: OneTask) -> list[str]:
    """The reasons of the dead letters."""
    return [one["reason"] for one in lab.dead_letters()]


def refusals(lab: OneTask) -> list[str]:
    """The codes of the refused orders; none of them is a dead letter."""
    assert [] == letters(lab)
    return [one["code"] for one in answers(lab) if one["outcome"] == "refused"]
