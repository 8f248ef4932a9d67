"""Sample payments."""

from __future__ import annotations

import random
from typing import Any, Final

import orjson

RESENT_OF: Final = 10
"""Every tenth payment is sent twice."""
REFUNDED_OF: Final = 40
"""Every fortieth payment is refunded in part."""
PRICES: Final = {
    "subscription": {"USD": 999, "EUR": 899, "JPY": 1_500},
    "upgrade": {"USD": 1_999, "EUR": 1_799, "JPY": 3_000},
    "gift": {"USD": 2_500, "EUR": 2_300, "JPY": 3_800},
}
"""Minor units by product, by currency."""
CARDS: Final = ("pm_card_visa", "pm_card_mastercard", "pm_card_amex")


def sample_payments(payments: int) -> list[bytes]:
    """JSON lines for `submit`: so many charges, every tenth once more some time after its first event.

    Every fortieth is followed by a refund of half of it. Always the same for the same number. Many users pay
    a few times, some pay often, each in one currency.
    """
    chance = random.Random(2026)  # noqa: S311 - sample data
    soon = max(2, min(400, payments // 4))
    lines: list[tuple[float, bytes]] = []
    for number in range(payments):
        payment = _payment(number, chance, users=max(10, payments // 4))
        line = orjson.dumps(payment) + b"\n"
        lines.append((number, line))
        if number % REFUNDED_OF == REFUNDED_OF - 1:
            lines.append((number + chance.uniform(1, soon), orjson.dumps(_refund(payment)) + b"\n"))
        if number % RESENT_OF == RESENT_OF - 1:
            lines.append((number + chance.uniform(1, soon), line))
    return [line for _, line in sorted(lines)]


def refunds_among(payments: int) -> int:
    """How many refunds follow so many charges."""
    return payments // REFUNDED_OF


def _refund(payment: dict[str, Any]) -> dict[str, Any]:
    """Half of the money back."""
    payment_id = payment["payment_id"]
    about = {"payment_id": f"refund-of-{payment_id}", "action": "refund", "refund_of": payment_id}
    return payment | about | {"amount_minor": payment["amount_minor"] // 2}


def _payment(number: int, chance: random.Random, users: int) -> dict[str, Any]:
    user = chance.randint(1, users // 25 + 4 if chance.random() < 0.3 else users)
    product = chance.choices(list(PRICES), weights=(8, 1, 1))[0]
    currency = ("USD", "EUR", "USD", "JPY")[user % 4]
    return {
        "payment_id": f"sample-{number + 1:06}",
        "user_id": f"user-{user:05}",
        "product": product,
        "amount_minor": PRICES[product][currency],
        "currency": currency,
        "payment_method": chance.choice(CARDS),
    }
