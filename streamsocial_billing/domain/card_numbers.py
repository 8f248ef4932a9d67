"""Card numbers where none belongs.

A card number is 13-19 digits with a right Luhn sum (ISO/IEC 7812-1); blanks and dashes between digits do not
count. One number in ten passes Luhn by chance, so each place has its own measure:

- payment_method: any such number (ANY_LEAD); this is where one would be sent by mistake.
- business_ref, unknown fields, raw bytes: one that starts with 2-6 (CARD_LEAD), as payment cards do. A time
  stamp of these years in ms, us or ns starts with 1 and so is never refused by chance.
- payment_id, user_id, refund_of: only what is nothing but a number with a big brand's own prefix and length,
  plain or in its printed groups (is_card). Else one in ten users whose ids are numbers could never pay.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

ANY_LEAD = b"0123456789"
CARD_LEAD = b"23456"
LIKE_A_CARD = re.compile(r"[0-9](?:[ -]*[0-9]){12}")
"""The quick look: nearly every string has no such run of digits, so it holds no card number."""
BRAND_NUMBER = (
    r"(?:4[0-9]{3}|5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720|6011|64[4-9][0-9]"
    r"|65[0-9]{2})(?:-?[0-9]{4}){3}|3[47][0-9]{2}-?[0-9]{6}-?[0-9]{5}"
)
"""A pattern: a big brand's own prefix and length; whether the Luhn sum is right it cannot say."""
_BRANDS = re.compile(BRAND_NUMBER)
# In raw JSON a sign may also be written as \u0034. _unescaped() turns that into the digit and pads of _PAD.
_PAD = b"\x01"
_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_RAW_RUN = re.compile(rb"[0-9](?:[ \x01-]*[0-9]){12,}")
_RAW_DIGIT = re.compile(rb"[0-9]\x01*")
_RAW_METHOD = re.compile(rb'"payment_method"\s*:\s*"(?:[^"\\]|\\.)*', re.DOTALL)
_DOUBLED = tuple(sum(divmod(2 * digit, 10)) for digit in range(10))


def is_card(text: str) -> bool:
    """True if `text` is nothing but a card number of a big brand."""
    return bool(_BRANDS.fullmatch(text)) and holds_card(text)


def holds_card(text: str, leads: bytes = CARD_LEAD) -> bool:
    """True if somewhere in `text` stands a card number whose first digit is one of `leads`."""
    return bool(LIKE_A_CARD.search(text)) and any(_card_places(text.encode("ascii", "replace"), leads))


def mask_text(text: str) -> str:
    """`text` (ASCII) for a message, with any card number masked."""
    return _mask(text.encode(), ANY_LEAD)[0].decode()


def mask_card_numbers(value: bytes) -> tuple[bytes, bool]:
    """`value` with all but the last four digits of each card number as `*`; True if there was one.

    For dead letters: works on the raw bytes, as they need not be JSON, and keeps their length.
    """
    masked, found = _mask(value, CARD_LEAD)
    for method in _RAW_METHOD.finditer(masked):
        text, more = _mask(method[0], ANY_LEAD)
        masked = masked[: method.start()] + text + masked[method.end() :]
        found = found or more
    return masked, found


def _mask(value: bytes, leads: bytes) -> tuple[bytes, bool]:
    places = set(_card_places(_unescaped(value), leads))
    if not places:
        return value, False
    masked = bytearray(value)
    for start, end in places:
        masked[start:end] = b"*" * (end - start)
    return bytes(masked), True


def _unescaped(value: bytes) -> bytes:
    """`value` at equal length and with JSON's escapes undone, as far as card numbers are concerned."""

    def plain(match: re.Match[bytes]) -> bytes:
        length = len(match[0])
        sign = chr(int(match[0][2:], 16)) if length == 6 else ""
        if sign in tuple("0123456789 -"):
            return sign.encode() + _PAD * (length - 1)
        return b"." * length

    return _ESCAPE.sub(plain, value) if b"\\" in value else value


def _card_places(plain: bytes, leads: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each digit to mask: those of card numbers, without their last four."""
    for run in _RAW_RUN.finditer(plain):
        digits = [(one.start() + run.start(), one.end() + run.start()) for one in _RAW_DIGIT.finditer(run[0])]
        for first, last in _cards([plain[start] - 48 for start, _ in digits], _group_starts(digits), leads):
            yield from digits[first : last - 4]


def _group_starts(digits: list[tuple[int, int]]) -> list[int]:
    """Where a group of digits begins after a blank or dash, as indexes of `digits`; the end is one, too."""
    breaks = [at for at in range(1, len(digits)) if digits[at - 1][1] != digits[at][0]]
    return [0, *breaks, len(digits)]


def _cards(digits: list[int], starts: list[int], leads: bytes) -> Iterator[tuple[int, int]]:
    """First and last + 1 of each card number made of whole groups: "4242 4242 4242 4242 12 27" has one.

    Sums up to each digit make a candidate's Luhn sum one subtraction, so a hostile megabyte takes seconds.
    """
    sums = [[0], [0]]  # Luhn sums with the digits at even, odd indexes taken single
    for at, digit in enumerate(digits):
        sums[at % 2].append(sums[at % 2][-1] + digit)
        sums[1 - at % 2].append(sums[1 - at % 2][-1] + _DOUBLED[digit])
    for index, first in enumerate(starts[:-1]):
        if digits[first] + 48 not in leads:
            continue
        for last in starts[bisect_left(starts, first + 13, index) : bisect_left(starts, first + 20, index)]:
            single = sums[(last - 1) % 2]
            if (single[last] - single[first]) % 10 == 0:
                yield first, last
