"""Card numbers where none belongs.

A card number is 12-19 digits with a right Luhn sum (ISO/IEC 7812-1), made of whole groups of digits with up
to six other signs between two of them: blanks and dashes of any alphabet, `. , / _ :`, quotes. A letter ends
a number. One number in ten passes Luhn by chance, so each place has its own measure:

- payment_method: any such number from 13 digits on (ANY_LEAD); this is where one would be sent by mistake.
- business_ref, unknown fields, raw bytes: alone or with blanks and dashes one that starts with 3-6
  (CARD_LEAD), as payment cards do; else (dates start with 2; dates, addresses with ports, decimals have other
  signs between) one with the prefix and length of a brand, in groups as people write them. A time stamp of
  these years in ms, us or ns starts with 1 and so is never refused by chance.
- ids (payment_id, user_id, refund_of; those of gateways): prefix and length of a brand, in such groups, also
  as a part of the id (`holds_card_in_id`). Else one in ten users whose ids are numbers could never pay. What
  is drawn by chance, a UUID or a hash, is not refused by chance.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, NamedTuple

ANY_LEAD = b"0123456789"
CARD_LEAD = b"3456"
LIKE_A_CARD = re.compile(r"\d(?:[\W_]*\d){11}")
"""The quick look: nearly every string has no such run of digits, so it holds no card number."""
_BRANDS: Final = re.compile(
    rb"4[0-9]{12}(?:[0-9]{3}){0,2}"  # Visa
    rb"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    rb"|220[0-4][0-9]{12,15}"  # Mir
    rb"|3[47][0-9]{13}"  # American Express
    rb"|(?:30[0-5][0-9]|3095|3[689][0-9]{2})[0-9]{10,15}"  # Diners Club
    rb"|(?:6011|64[4-9][0-9]|6[25][0-9]{2}|81[0-9]{2})[0-9]{12,15}"  # Discover, UnionPay, RuPay
    rb"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"  # JCB
    rb"|(?:5018|5020|5038|5[678][0-9]{2}|6304|6759|676[1-3])[0-9]{8,15}"  # Maestro
)
"""Prefixes and lengths by brand (ISO/IEC 7812 and what the brands publish)."""
_PREFIXES: Final = re.compile(rb"4|5[0-8]|2[2-7]|3[0-9]|6|81")
_RARE_IN_IDS: Final = re.compile(
    rb"[0-9]{12}|4[0-9]{12}|4[0-9]{18}|(?:30|3[689])[0-9]{15,17}|5[678][0-9]{10,17}"
)
"""Hardly a card has these, and many numbers that are ids do: one in a hundred 64-bit numbers by chance."""
_DRAWN: Final = re.compile(
    r"(?:[a-z0-9]{1,12}[_:-])?(?=[0-9-]*[a-f])"
    r"(?:[0-9a-f]{16}|[0-9a-f]{20,64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.IGNORECASE,
)
"""Hexadecimal: 64 bits, 80 and more, a UUID, behind a short prefix or none. Of ids of 96 bits one in two
thousand has a card number's digits somewhere."""
_SECURITY_CODE: Final = re.compile(
    rb"(?i)(?:cvc|cvv|cvn|csc|security[ _-]?code)2?[^0-9a-z]{1,6}([0-9]{3,4})(?![0-9a-z])"
)
"""`"cvc": "123"`, `CVV2=1234`: no card number, and never to be kept (PCI DSS 4.0, 3.3.1)."""
# In raw JSON a sign may be written as \u0034, in Python's repr as \xa0, both in texts within texts; in UTF-8
# it may take several bytes. _plain() turns that into the sign that it counts as, and pads of _PAD, so that
# places stay what they are.
_PAD = b"\x01"
_FOREIGN = re.compile(
    rb"\\+(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[^0-9])?|[\xc2-\xf4][\x80-\xbf]{1,3}", re.DOTALL
)
_RUN = re.compile(rb"[0-9](?:[^0-9A-Za-z\x80-\xff]*+[0-9]){11,}+")
_GROUP = re.compile(rb"[0-9]+")
_NARROW = re.compile(rb"[ -]*")
_RAW_METHOD = re.compile(rb'"payment_method"\s*:\s*"(?:[^"\\]|\\.)*', re.DOTALL)
_SINGLE = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(b"0123456789", bytes(sum(divmod(2 * digit, 10)) for digit in range(10)))
_MARKED = re.compile(b"\1+")
_PRINTED: Final = ([4, 6, 5], [4, 6, 4], [6, 4, 6])
_IN_TWO: Final = ([4, 11], [4, 12], [6, 10], [6, 13], [8, 8], [12, 4])
MOST_BETWEEN: Final = 6
"""Signs between two digits of a number; any count of blanks and dashes."""
Places = list[tuple[int, int]]


def holds_card_in_id(text: str) -> bool:
    """True if an id, or a part of it, is a card number."""
    if not LIKE_A_CARD.search(text) or _DRAWN.fullmatch(text):
        return False
    return any(not _RARE_IN_IDS.fullmatch(card) for run in _runs_in(text) for *_, card in run.cards(b""))


def holds_card(text: str, leads: bytes = CARD_LEAD) -> bool:
    """True if somewhere in `text` stands a card number whose first digit is one of `leads`, or of a brand."""
    return bool(LIKE_A_CARD.search(text)) and any(any(run.cards(leads)) for run in _runs_in(text))


def holds_security_code(text: str) -> bool:
    """True if `text` names the code on a card's back with its digits."""
    return _SECURITY_CODE.search(text.encode("utf-8", "replace")) is not None


def mask_text(text: str) -> str:
    """`text` for a message, with any card number masked."""
    return _mask(text.encode("utf-8", "replace"), ANY_LEAD)[0].decode()


def mask_card_numbers(value: bytes) -> tuple[bytes, bool]:
    """`value` with all but the last four digits of each card number as `*`; True if there was one.

    So is the security code beside it. For dead letters: works on the raw bytes, as they need not be JSON, and
    keeps their length.
    """
    masked, found = _mask(value, CARD_LEAD)
    for method in _RAW_METHOD.finditer(masked):
        text, more = _mask(method[0], ANY_LEAD)
        masked = masked[: method.start()] + text + masked[method.end() :]
        found = found or more
    return masked, found


def _mask(value: bytes, leads: bytes) -> tuple[bytes, bool]:
    plain = _plain(value)
    padded = _PAD in plain
    signs = plain.replace(_PAD, b"") if padded else plain
    hidden = [found.span(1) for found in _SECURITY_CODE.finditer(signs)]
    for run in _runs(signs):
        hidden += run.hidden(leads)
    if not hidden:
        return value, False
    at = [place for place, sign in enumerate(plain) if sign != _PAD[0]] if padded else range(len(value))
    at = [*at, len(value)]
    masked = bytearray(value)
    for start, end in hidden:
        masked[at[start] : at[end]] = b"*" * (at[end] - at[start])
    return bytes(masked), True


def _plain(value: bytes) -> bytes:
    """`value` at equal length, each sign as what it counts as: escapes of JSON undone, blanks, dashes and
    digits of any alphabet as those of ASCII."""

    def counted(match: re.Match[bytes]) -> bytes:
        one = match[0]
        code = one.lstrip(b"\\")
        if len(code) == len(one):
            sign = one.decode("utf-8", "replace")
        else:
            sign = chr(int(code[1:], 16)) if len(code) > 2 else "."
        return _counts_as(sign) + _PAD * (len(one) - 1)

    return value if value.isascii() and b"\\" not in value else _FOREIGN.sub(counted, value)


def _counts_as(sign: str) -> bytes:
    if len(sign) != 1:
        return b"."
    if sign.isdecimal():
        return b"%d" % int(sign)
    if sign.isalnum():
        return sign.encode() if sign.isascii() else b"x"
    if sign.isspace() or sign in _FORMAT_SIGNS:
        return b" "
    return b"-" if sign in _DASHES else b"."


_DASHES: Final = (
    "-\u00ad\u058a\u05be\u2010\u2011\u2012\u2013\u2014\u2015\u2043"
    "\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d"
)
_FORMAT_SIGNS: Final = "\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Blanks without a width."""


def _runs_in(text: str) -> Iterator[Run]:
    return _runs(_plain(text.encode("utf-8", "replace")).replace(_PAD, b""))


class Run(NamedTuple):
    """Groups of digits with no letter between them.

    numbers  the digits alone
    starts   where each group begins in them; their length is the last one
    places   where each group begins in the text
    gaps     what stands before each group: 0 blanks and dashes, 1 other signs, 2 a point or comma
    """

    numbers: bytes
    starts: list[int]
    at: list[int]
    gaps: list[int]

    def cards(self, leads: bytes) -> Iterator[tuple[int, int, bytes]]:
        """First, last + 1, digits of what is made of whole groups and is a card's: "4242 4242 4242 4242 12
        27" has one. `leads`: those that count alone or with blanks and dashes, whatever the brand.

        Sums up to each digit make a candidate's Luhn sum one subtraction.
        """
        numbers, starts, gaps = self.numbers, self.starts, self.gaps
        if len(numbers) < 12:
            return
        sums = _sums(numbers)
        narrow = 0  # the first group that something else than blanks and dashes stands before
        for index, first in enumerate(starts[:-1]):
            counts, of_brand = numbers[first] in leads, _PREFIXES.match(numbers, first) is not None
            if not counts and not of_brand:
                continue
            while narrow <= index or (narrow < len(gaps) and not gaps[narrow]):
                narrow += 1
            least = bisect_left(starts, first + 12, index + 1)
            for place in range(least, bisect_left(starts, first + 20, least)):
                last = starts[place]
                single = sums[(last - 1) % 2]
                if (single[last] - single[first]) % 10:
                    continue
                card = numbers[first:last]
                if (counts and last - first >= 13 and place <= narrow) or (
                    of_brand and _BRANDS.fullmatch(card) and self._in_groups(index, place)
                ):
                    yield first, last, card

    def _in_groups(self, index: int, end: int) -> bool:
        """Groups of one size, or as cards are printed; a decimal is not taken for two groups."""
        sizes = [self.starts[at + 1] - self.starts[at] for at in range(index, end)]
        if len(sizes) == 2:
            return self.gaps[index + 1] < 2 and sizes in _IN_TWO
        whole, rest = set(sizes[:-1]), sizes[-1]
        return (len(whole) < 2 and rest <= max(whole, default=rest)) or sizes in _PRINTED

    def hidden(self, leads: bytes) -> Places:
        """Where in the text the digits to mask stand: those of cards without their last four, and what
        follows a card as its security code does."""
        marks = bytearray(len(self.numbers))
        for first, last, card in self.cards(leads):
            marks[first : last - 4] = b"\1" * (len(card) - 4)
            begin, end = self._security_code_after(last)
            marks[begin:end] = b"\1" * (end - begin)
        if not any(marks):
            return []
        found = []
        for group, begin in enumerate(self.at):
            first = self.starts[group]
            for one in _MARKED.finditer(marks, first, self.starts[group + 1]):
                found.append((begin + one.start() - first, begin + one.end() - first))
        return found

    def _security_code_after(self, last: int) -> tuple[int, int]:
        """The three or four digits that follow a card number that ends at `last`, a date between or not."""
        starts = self.starts
        group = bisect_left(starts, last)
        match [starts[at + 1] - starts[at] for at in range(group, min(group + 3, len(starts) - 1))]:
            case [3, *_] | [4]:
                after = 0
            case [4, 3 | 4, *_]:
                after = 1
            case [2, 2, 3 | 4]:
                after = 2
            case _:
                return last, last
        return starts[group + after], starts[group + after + 1]


def _sums(numbers: bytes) -> tuple[list[int], list[int]]:
    """Luhn sums up to each digit, with the digits at even, at odd indexes taken single."""
    doubled = numbers.translate(_DOUBLED)
    even, odd = bytearray(doubled), bytearray(doubled)
    even[::2], odd[1::2] = numbers.translate(_SINGLE)[::2], numbers.translate(_SINGLE)[1::2]
    return [0, *accumulate(even)], [0, *accumulate(odd)]


def _runs(signs: bytes) -> Iterator[Run]:
    """`signs` without pads."""
    for found in _RUN.finditer(signs):
        numbers, starts, at, gaps, before = bytearray(), [0], list[int](), list[int](), found.start()
        for group in _GROUP.finditer(signs, found.start(), found.end()):
            begin, end = group.span()
            gap = signs[before:begin]
            kind = 0 if not gap or _NARROW.fullmatch(gap) else 2 if gap in (b".", b",") else 1
            if end - begin > 19 or (kind and len(gap) > MOST_BETWEEN):
                yield Run(bytes(numbers), starts, at, gaps)
                numbers, starts, at, gaps = bytearray(), [0], [], []
            if end - begin <= 19:
                numbers += group[0]
                starts.append(len(numbers))
                at.append(begin)
                gaps.append(kind)
            before = end
        yield Run(bytes(numbers), starts, at, gaps)
