"""What Stripe can carry: least and largest amounts, digits, how long it keeps a key."""

from __future__ import annotations

from streamsocial_billing.domain.gateway_calls import Invalid, Traits
from streamsocial_billing.domain.money import CURRENCIES, EXPONENTS

_MIN_MAJOR_CENTS = {
    "USD": 50, "AED": 200, "AUD": 50, "BRL": 50, "CAD": 50, "CHF": 50, "CZK": 1500, "DKK": 250, "EUR": 50,
    "GBP": 30, "HKD": 400, "HUF": 17_500, "INR": 50, "JPY": 50, "MXN": 1000, "MYR": 200, "NOK": 300,
    "NZD": 50, "PLN": 200, "RON": 200, "SEK": 300, "SGD": 50, "THB": 1000,
}  # fmt: skip
"""docs.stripe.com/currencies, "Minimum and maximum charge amounts"; minor units. Others: settled there."""
_MAX = dict.fromkeys(CURRENCIES, 99_999_999) | {
    "COP": 9_999_999_999, "HUF": 9_999_999_999, "IDR": 999_999_999_999, "INR": 999_999_999,
    "LBP": 999_999_999_999,
}  # fmt: skip
_WHOLE_MAJOR = frozenset({"ISK", "UGX"})
"""Two digits by Stripe's rule, but they must be 00 ("special cases")."""

TRAITS = Traits(
    key_safe_window_s=64_800,  # 3/4 of the 24 h after which Stripe may prune a key
    consistency_delay_s=60,  # the search lags "under a minute"; the list that confirms an absence does not
    min_minor=_MIN_MAJOR_CENTS,
    max_minor=_MAX,
)


def not_representable(amount_minor: int, currency: str) -> Invalid | None:
    """Refuse what Stripe cannot carry: broken ISK and UGX, a third digit of KWD, BHD, ... that is not 0."""
    step = 100 if currency in _WHOLE_MAJOR else 10 if EXPONENTS.get(currency) == 3 else 1
    return Invalid("amount_not_representable") if amount_minor % step else None
