"""Money as integer minor units."""

from __future__ import annotations

from typing import Final, TypeGuard

MAX_AMOUNT_MINOR: Final = 10**12
"""The most that one event may carry, in minor units; more is a mistake, not a payment."""

# ISO 4217 active codes of countries; funds, metals and test codes (XAU, XTS, CLF, ...) cannot be charged.
_TWO = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY
    COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MRU MUR MVR
    MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK
    SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST
    XCD XCG YER ZAR ZMW ZWG
"""
_ZERO = "BIF CLP DJF GNF JPY KMF KRW PYG RWF VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
# Where Stripe departs from ISO 4217 (docs.stripe.com/currencies, "special cases"): ISO says ISK 0, UGX 0,
# MGA 2. One meaning of "minor unit" must hold for every gateway, or a change of gateway is a 100x charge.
_AS_STRIPE = {"ISK": 2, "UGX": 2, "MGA": 0}

EXPONENTS: Final[dict[str, int]] = (
    dict.fromkeys(_TWO.split(), 2)
    | dict.fromkeys(_ZERO.split(), 0)
    | dict.fromkeys(_THREE.split(), 3)
    | _AS_STRIPE
)
"""Digits after the point, by currency: 10 ** exponent minor units are one major unit."""

CURRENCIES: Final = frozenset(EXPONENTS)
"""The currencies that an event may carry, upper-case."""


# Not charged any more, or never: what others were paid in on a shared account, years ago or today. ISO 4217
# list three (historic) and its codes of funds; exponents as they were when the currency ended.
_WITHDRAWN_TWO = """
    ANG ATS AZM BGL BGN BOV CHE CHW COU CSD CUC CYP DEM EEK FIM FRF GHC GWP HRK IEP LTL LVL MRO MTL MXV MZM
    NLG PEI PLZ ROL RUR SDD SIT SKK SLL SRG STD SVC TMM TRL USN USS VEB VEF XBA YUM ZMK ZWD ZWL ZWR
"""
_WITHDRAWN_ZERO = "ADP BEF BYR ESP GRD ITL LUF MGF PTE TPE UYI"
_OF_PROVIDERS = "EURC PYUSD USDB USDC"
"""Codes that only gateways use; what Stripe names neither zero- nor three-decimal has two digits."""

KNOWN_EXPONENTS: Final[dict[str, int]] = (
    dict.fromkeys(_WITHDRAWN_TWO.split(), 2)
    | dict.fromkeys(_WITHDRAWN_ZERO.split(), 0)
    | dict.fromkeys(_OF_PROVIDERS.split(), 2)
    | {"CLF": 4, "UYW": 4}
    | EXPONENTS
)
"""EXPONENTS with what may be met but not charged: withdrawn currencies, funds, codes of gateways alone."""


MINUS: Final = "\N{MINUS SIGN}"


def exponent_of(currency: str) -> int | None:
    """Digits after the point of any currency that may be met; None for a code that nobody here knows."""
    return KNOWN_EXPONENTS.get(currency)


def is_amount(value: object) -> TypeGuard[int]:
    """True for a chargeable number of minor units: an int (no bool, no float) from 1 to MAX_AMOUNT_MINOR."""
    return type(value) is int and 0 < value <= MAX_AMOUNT_MINOR


def shown_amount(amount: int, currency: str, minus: str = "-") -> str:
    """Minor units for people, thousands set apart: 123450 USD is 1,234.50, 1234 JPY is 1,234.

    As they came in a currency that is not known. `minus` is MINUS where the text is typeset.
    """
    exponent = exponent_of(currency) or 0
    whole, rest = divmod(abs(amount), 10**exponent)
    sign = minus if amount < 0 else ""
    return f"{sign}{whole:,}.{rest:0{exponent}}" if exponent else f"{sign}{whole:,}"


def format_minor(amount: int, currency: str) -> str:
    """`amount` minor units for people, as in "12.34 USD"; as they came where the currency is not known.

    Never fails for a currency: what others were paid in must not stop a report.
    """
    if type(amount) is not int:
        raise TypeError(f"money is a whole number of minor units, not {type(amount).__name__}")
    exponent = exponent_of(currency)
    if exponent is None:
        return f"{amount} {currency} (as it came)"
    major, minor = divmod(abs(amount), 10**exponent)
    point = f".{minor:0{exponent}d}" if exponent else ""
    return f"{'-' if amount < 0 else ''}{major}{point} {currency}"
