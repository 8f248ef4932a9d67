"""Amounts as PayPal writes them: decimal text in the currencies that it takes."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from streamsocial_billing.domain.money import EXPONENTS
from streamsocial_billing.gateways.paypal.own_fields import number_of

DIGITS = dict.fromkeys(
    "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD ILS MXN MYR NOK NZD PHP PLN SEK SGD THB USD".split(), 2
) | {"HUF": 0, "JPY": 0, "TWD": 0}
"""Digits after the point that PayPal takes (developer.paypal.com/reference/currency-codes); no others."""


def decimal_text(amount_minor: int, currency: str) -> str | None:
    """The amount as PayPal takes it; None where it cannot: other currencies, parts of a forint or NT$."""
    digits, exponent = DIGITS.get(currency), EXPONENTS.get(currency)
    if digits is None or exponent is None or amount_minor % 10 ** (exponent - digits):
        return None
    return f"{Decimal(amount_minor).scaleb(-exponent):.{digits}f}"


def minor_of(money: dict[str, Any]) -> tuple[int, str] | None:
    """Minor units, currency of PayPal's {currency_code, value}; None where they are not whole."""
    try:
        currency = str(money["currency_code"]).upper()
        minor = number_of(money["value"]).scaleb(EXPONENTS[currency])
        return (int(minor), currency) if minor == int(minor) else None
    except (KeyError, InvalidOperation, TypeError, ValueError, OverflowError):
        return None
