"""A line of a settlement file, whatever the format, with the checks that every format shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from streamsocial_billing.money import EXPONENTS
from streamsocial_billing.reconciliation.errors import InputRefused

KINDS: Final = frozenset({"charge", "refund", "dispute", "adjustment", "payout"})
MAX_MINOR: Final = 10**15
_NUMBER = re.compile(r"[+-]?\d{1,16}(\.\d{1,6})?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?|\d{4}-\d\d-\d\d")

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


class BadLine(Exception):
    """Raised when a line cannot be right; the reader adds the file's name with the line number."""


def refused(name: str, number: int, why: object) -> InputRefused:
    """The one line that a person gets."""
    return InputRefused(f"{name}: line {number}: {why}")


def minor_units(text: str, currency: str, what: str) -> int:
    """Major units as text to minor units, exactly: more digits than the currency has are refused."""
    if not _NUMBER.fullmatch(text):
        raise BadLine(f"{what} is {text[:40]!a}, not a decimal number")
    try:
        scaled = Decimal(text).scaleb(EXPONENTS[currency])
    except InvalidOperation:
        raise BadLine(f"{what} is {text[:40]!a}, not a decimal number") from None
    whole = int(scaled)
    if whole != scaled:
        raise BadLine(f"{what} is {text}: {currency} has {EXPONENTS[currency]} digits after the point")
    return bounded(whole, what)


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


def known_currency(text: str) -> str:
    """The currency in capitals; refused where it is none of ours."""
    currency = text.strip().upper()
    if currency not in EXPONENTS:
        raise BadLine(f"currency is {text[:20]!a}, none that is known")
    return currency


def checked(line: Line) -> Line:
    """Refuse a line whose amounts do not add up."""
    if line.gross - line.fee != line.net:
        raise BadLine(
            f"gross - fee is not net: {line.gross} - {line.fee} is not {line.net} (minor units of "
            f"{line.currency})"
        )
    return line


def millis(text: str) -> int:
    """A date, or a date with time, to ms since the epoch; UTC where nothing is said."""
    if not _TIME.fullmatch(text):
        raise BadLine(f"the time is {text[:40]!a}, not YYYY-MM-DD HH:MM:SS")
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadLine(f"the time is {text[:40]!a}: {error}") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return int(when.timestamp() * 1000)


def columns(header: list[str], needed: tuple[str, ...], number: int, name: str) -> dict[str, int]:
    """Where each column is; refuses a header that lacks one or has one twice."""
    places = {title.strip(): place for place, title in enumerate(header)}
    if len(places) != len(header):
        raise refused(name, number, "a column stands twice in the header")
    missing = [one for one in needed if one not in places]
    if missing:
        raise refused(name, number, f"column {missing[0]} is missing")
    return places
