"""The gate for words of a gateway: length first, then alphabet, then card numbers.

A code or an id that does not pass is none. So nothing that a gateway says can be too long for a record, forge
a line of the log, reach a terminal as a command, or bring a card number into topics and tables.
"""

from __future__ import annotations

import re
from typing import Final

from streamsocial_billing.domain.card_numbers import ANY_LEAD, holds_card, holds_card_in_id

MAX_CODE: Final = 100
MAX_REFERENCE: Final = 255
_CODE: Final = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_CODE}}}")
_REFERENCE: Final = re.compile(rf"[!-~]{{1,{MAX_REFERENCE}}}")
_NO_LETTER: Final = re.compile(r"[^A-Za-z]*")


def code_in(value: object) -> str | None:
    """The code of a reason, None where it is none."""
    if not isinstance(value, str) or not _CODE.fullmatch(value) or holds_card(value, ANY_LEAD):
        return None
    return value


def reference_in(value: object) -> str | None:
    """A gateway's id of something, None where it is none: 1 to 255 visible signs of ASCII.

    One with letters is what the gateway drew, whatever its digits look like: one in thousands would be a card
    number by chance, and a charge without its id stays unknown for good.
    """
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        return None
    return None if _NO_LETTER.fullmatch(value) and holds_card_in_id(value) else value
