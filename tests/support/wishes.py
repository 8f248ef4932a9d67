"""Payment events of the user u1, made now, as callers send them."""

from __future__ import annotations

from typing import Any

from support.one_task import OneTask

from streamsocial_billing.domain.events import PaymentEvent


def payment(lab: OneTask, payment_id: str = "p1", **fields: Any) -> PaymentEvent:
    """A gift for 5.00 USD; `fields` in place of its own."""
    filled = {
        "product": "gift", "amount_minor": 500, "currency": "USD", "payment_method": "pm_card_visa",
        "user_id": "u1", "payment_id": payment_id,
    } | fields  # fmt: skip
    return PaymentEvent.from_mapping(filled, now_ms=lab.now_ms, default_gateway="simulated")


def charge(lab: OneTask, payment_id: str = "c1", **fields: Any) -> PaymentEvent:
    """The same, to be refunded."""
    return payment(lab, payment_id, **fields)


def refund(lab: OneTask, payment_id: str = "r1", amount: int = 200, **fields: Any) -> PaymentEvent:
    """A refund of 2.00 USD of the charge c1."""
    about = {"action": "refund", "refund_of": "c1", "amount_minor": amount} | fields
    return payment(lab, payment_id, **about)
