"""Our words on an object of PayPal: `invoice_id` and `custom_id`, at most 127 characters each.

`invoice_id` is our reference. `custom_id` says whose it is, in one of these shapes, the newest first; the
reference is a function of user and payment, so it proves what was read:

2  `ref:user:payment` where that fits; else `user:payment`, cut at 127 characters. What is cut off (two
   characters at most, both ids having 64) is found by trying: the reference tells.
1  `ref:user:payment`, however long. Releases before made their calls with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from string import ascii_letters, digits
from typing import Any, Final

from streamsocial_billing.domain.gateway_calls import Owner
from streamsocial_billing.domain.references import is_our_reference, kind_of_reference

MOST: Final = 127
"""The longest `invoice_id` and `custom_id` (developer.paypal.com/docs/api/payments/v2, capture refund)."""
_ID: Final = ascii_letters + digits + "_-"
_LONGEST_ID: Final = 64
_NUMBER: Final = re.compile(r"-?(\d{1,20}(\.\d{1,10})?|\.\d{1,10})", re.ASCII)


def custom_ids(ref: str, user_id: str, payment_id: str) -> list[str]:
    """`custom_id` in every shape that was ever sent, the newest first; equal ones once."""
    whole = f"{ref}:{user_id}:{payment_id}"
    newest = whole if len(whole) <= MOST else f"{user_id}:{payment_id}"[:MOST]
    return [newest] if newest == whole else [newest, whole]


def words_of(custom: object, invoice: object = None) -> Owner | None:
    """Our words in the `custom_id` (lists: `custom_field`) and `invoice_id` of an object; None: not ours."""
    if not isinstance(custom, str):
        return None
    match custom.split(":"):
        case [ref, user_id, payment_id] if ref and user_id and payment_id:
            return Owner(user_id, payment_id, ref)
        case [user_id, begun] if user_id and begun and is_our_reference(invoice):
            for end in _ends(custom, begun):
                if kind_of_reference(invoice, user_id, begun + end) is not None:
                    return Owner(user_id, begun + end, invoice)
    return None


def words_on(it: Any) -> Owner | None:
    """Our words on an order's unit, a capture or a refund."""
    return words_of(it.get("custom_id"), it.get("invoice_id"))


def _ends(custom: str, begun: str) -> Iterator[str]:
    """What may have been cut off."""
    yield ""
    if len(custom) == MOST:
        for length in range(1, min(_LONGEST_ID - len(begun), 2) + 1):
            yield from map("".join, product(_ID, repeat=length))


def number_of(value: object) -> Decimal:
    """The `value` of an amount; raises ValueError for what the API does not write: 1e3, 2_5, blanks."""
    if type(value) not in (str, int) or not _NUMBER.fullmatch(str(value)):
        raise ValueError("an amount that is no decimal number")
    return Decimal(str(value))
