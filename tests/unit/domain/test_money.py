"""Money: exponents, amounts, text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsocial_billing.domain.money import CURRENCIES, EXPONENTS, MAX_AMOUNT_MINOR, format_minor, is_amount


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1234, "USD", "12.34 USD"),
        (5, "USD", "0.05 USD"),
        (-5, "EUR", "-0.05 EUR"),
        (0, "USD", "0.00 USD"),
        (1234, "JPY", "1234 JPY"),
        (1234, "KWD", "1.234 KWD"),
        (100, "UGX", "1.00 UGX"),
        (100, "MGA", "100 MGA"),
        (10**12, "USD", "10000000000.00 USD"),
    ],
)
def test_minor_units_are_shown_with_the_exponent_of_their_currency(
    amount: int, currency: str, text: str
) -> None:
    """A yen is not a hundredth of itself; UGX, ISK and MGA follow Stripe."""
    assert text == format_minor(amount, currency)


@given(st.integers(), st.sampled_from(sorted(CURRENCIES)))
def test_the_digits_shown_are_the_digits_of_the_amount(amount: int, currency: str) -> None:
    """Formatting moves the point, it never rounds."""
    number, shown = format_minor(amount, currency).split()

    assert currency == shown
    assert amount == int(number.replace(".", ""))
    assert EXPONENTS[currency] == len(number.partition(".")[2])


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(3000, "ANG", "30.00 ANG"), (3000, "ITL", "3000 ITL"), (150, "USDC", "1.50 USDC"),
     (3000, "QQQ", "3000 QQQ (as it came)")],
)  # fmt: skip
def test_money_that_others_were_paid_in_is_shown(amount: int, currency: str, text: str) -> None:
    """Withdrawn currencies, codes of gateways; one that nobody knows as it came. None of them is charged."""
    assert text == format_minor(amount, currency)
    assert currency not in CURRENCIES


@pytest.mark.parametrize("amount", [12.0, True, "12"])
def test_money_that_is_no_int_is_not_formatted(amount: object) -> None:
    """Floats and booleans never pass as money."""
    with pytest.raises(TypeError):
        format_minor(amount, "USD")  # type: ignore[arg-type]


def test_currencies_are_upper_case_codes_of_three_letters() -> None:
    """The table has the currencies that people pay with; no fund, metal or test code."""
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCIES)
    assert {"USD", "EUR", "JPY", "KWD", "UGX", "ISK", "MGA"} <= CURRENCIES
    assert not CURRENCIES & {"XAU", "XTS", "XXX", "CLF", "HRK"}
    assert 0 == EXPONENTS["JPY"] and 3 == EXPONENTS["KWD"] and 2 == EXPONENTS["UGX"]


@pytest.mark.parametrize("value", [0, -1, MAX_AMOUNT_MINOR + 1, 1.0, True, "1", None, float("nan")])
def test_what_is_no_amount_is_told_apart(value: object) -> None:
    """An amount is an int from 1 to 10**12."""
    assert not is_amount(value)


@pytest.mark.parametrize("value", [1, MAX_AMOUNT_MINOR])
def test_the_bounds_themselves_are_amounts(value: int) -> None:
    """The cap belongs to what is allowed."""
    assert is_amount(value)
