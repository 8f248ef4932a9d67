"""A line of a settlement file, whatever the format, with the checks that every format shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from typing import Final, NamedTuple

from streamsocial_billing.domain.card_numbers import holds_card_in_id, mask_text
from streamsocial_billing.domain.money import CURRENCIES, exponent_of
from streamsocial_billing.gateways.errors import InputRefused

KINDS: Final = frozenset({"charge", "refund", "dispute", "adjustment", "conversion", "payout"})
MAX_MINOR: Final = 10**15
LAST_MS: Final = 32_503_680_000_000
"""The year 3000."""
UNKNOWN_EXPONENT: Final = 2
"""Digits that a currency is taken to have which nobody here knows; only others are paid in such a one."""
_NUMBER = re.compile(r"[+-]?\d{1,16}([.,]\d{1,6})?", re.ASCII)
_REFERENCE = re.compile("[^\x00-\x1f\x7f-\x9f]{1,255}")
_TEXTS: Final = ("the line's id", "gateway_ref", "charge_ref", "payout_id")
_CODE = re.compile(r"[A-Z][A-Z0-9]{2,7}")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?|\d{4}-\d\d-\d\d", re.ASCII
)

Rows = Iterator[tuple[int, list[str]]]
"""Line number in the file, cells."""


class Line(NamedTuple):
    """One line; minor units with the gateway's sign: what was taken from us is negative.

    line_id     the gateway's own name of the line, where the format has one: the same line in two exports
                that overlap counts once
    gateway_ref the charge, refund or dispute; None on what is about none
    fee         positive: taken from us; gross - fee = net
    payout_id   the payout that the line is part of; of kind `payout`: the payout, `net` what was paid to us
    at          ms since the epoch
    facing, facing_currency
                what the customer paid or got back, where it was settled in another currency; else None
    """

    kind: str
    gateway: str
    line_id: str | None
    gateway_ref: str | None
    charge_ref: str | None
    ref: str | None
    gross: int
    fee: int
    net: int
    currency: str
    payout_id: str | None
    at: int
    facing: int | None = None
    facing_currency: str | None = None


@dataclass
class Reading:
    """How the texts of one file are to be read.

    decimal  `.` or `,`: what stands before the decimals; None: as the file shows, a point until then
    zone     of times without a zone that are not said to be UTC; None: nobody told
    """

    decimal: str | None = None
    zone: tzinfo | None = None

    def decimals(self, text: str, exponent: int) -> str:
        """The number with a point before its decimals; raises BadLine where it could mean two things."""
        found = "," if "," in text else "." if "." in text else None
        if found is None or found == self.decimal:
            return text if found != "," else text.replace(",", ".")
        if self.decimal is not None:
            raise BadLine(f"{text[:40]!a} has the other decimal separator: is it a thousands separator?")
        whole, _, digits = text.lstrip("+-").partition(found)
        grouped = len(digits) == 3 > exponent and digits[-1] == "0" and whole[0] != "0" and len(whole) < 4
        if grouped or (found == "," and (len(digits) > exponent or len(digits) == 3)):
            raise BadLine(f"{text[:40]!a}: thousands or decimals? Say it with --decimal-separator")
        self.decimal = found
        return text.replace(",", ".")


class BadLine(Exception):
    """Raised when a line cannot be right; the reader adds the file's name with the line number."""


def refused(name: str, number: int, why: object) -> InputRefused:
    """The one line that a person gets."""
    return InputRefused(f"{name}: line {number}: {why}")


def minor_units(text: str, currency: str, what: str, reading: Reading | None = None) -> int:
    """Major units as text to minor units, exactly: more digits than the currency has are refused.

    Of a currency that nobody here knows they are rounded: only others are paid in it.
    """
    if not _NUMBER.fullmatch(text):
        raise BadLine(f"{what} is {text[:40]!a}, not a decimal number")
    known = exponent_of(currency)
    exponent = UNKNOWN_EXPONENT if known is None else known
    try:
        plain = reading is None or (reading.decimal == "." and "," not in text)
        number = text if plain or reading is None else reading.decimals(text, exponent)
        whole, exact = _scaled(number, exponent)
    except InvalidOperation:
        raise BadLine(f"{what} is {text[:40]!a}, not a decimal number") from None
    if not exact and known is not None:
        raise BadLine(f"{what} is {text}: {currency} has {exponent} digits after the point")
    return bounded(whole, what)


@lru_cache(65_536)  # prices and fees repeat
def _scaled(number: str, exponent: int) -> tuple[int, bool]:
    """Minor units, half a unit to the even one; True if nothing was rounded."""
    scaled = Decimal(number).scaleb(exponent)
    whole = int(scaled.to_integral_value(ROUND_HALF_EVEN))
    return whole, whole == scaled


def whole_minor_units(text: str, what: str) -> int:
    """Minor units as text: digits alone."""
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise BadLine(f"{what} is {text[:40]!a}, not a whole number of minor units")
    return bounded(int(text), what)


def bounded(amount: int, what: str) -> int:
    """Refuse what no payment can be."""
    if abs(amount) > MAX_MINOR:
        raise BadLine(f"{what} is {amount} minor units: more than can be")
    return amount


@lru_cache(1024)  # a file has a few, in a million lines
def currency_of(text: str, *, ours: bool) -> str:
    """The currency in capitals; refused where it is no code, or a line of ours has one that we never charge.

    Others on the same account may be paid in any: withdrawn ones, codes of the gateway alone.
    """
    currency = text.strip().upper()
    if not _CODE.fullmatch(currency) or (ours and currency not in CURRENCIES):
        raise BadLine(f"currency is {text[:20]!a}, none that is known")
    return currency


def checked(line: Line) -> Line:
    """Refuse a line whose ids are none, or whose amounts do not add up; a card number in an id is masked."""
    texts = (line.line_id, line.gateway_ref, line.charge_ref, line.payout_id)
    for what, text in zip(_TEXTS, texts, strict=True):
        if text is not None and not _REFERENCE.fullmatch(text):
            raise BadLine(f"{what} is {text[:40]!a}: 1 to 255 characters in one line are needed")
    if line.gross - line.fee != line.net:
        raise BadLine(
            f"gross - fee is not net: {line.gross} - {line.fee} is not {line.net} (minor units of "
            f"{line.currency})"
        )
    if any(text is not None and holds_card_in_id(text) for text in texts):
        return line._replace(
            gateway_ref=_masked(line.gateway_ref), charge_ref=_masked(line.charge_ref),
            payout_id=_masked(line.payout_id),
        )  # fmt: skip
    return line


def _masked(text: str | None) -> str | None:
    return text if text is None or not holds_card_in_id(text) else mask_text(text)


def millis(text: str, zone: tzinfo = UTC) -> int:
    """A date, or a date with time, to ms since the epoch; in `zone` where nothing is said."""
    if not _TIME.fullmatch(text):
        raise BadLine(f"the time is {text[:40]!a}, not YYYY-MM-DD HH:MM:SS")
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=zone)
        at = int(when.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise BadLine(f"the time is {text[:40]!a}: {error}") from None
    if not 0 <= at < LAST_MS:
        raise BadLine(f"the time is {text[:40]!a}: no payment is of then")
    return at


def columns(header: list[str], needed: tuple[str, ...], number: int, name: str) -> dict[str, int]:
    """Where each column is; refuses a header that lacks one or has one twice."""
    places = {title.strip(): place for place, title in enumerate(header)}
    if len(places) != len(header):
        raise refused(name, number, "a column stands twice in the header")
    missing = [one for one in needed if one not in places]
    if missing:
        raise refused(name, number, f"column {missing[0]} is missing")
    return places
