"""What at a gateway is ours: what bears a reference of ours, and nothing else.

The one predicate for lists, settlement files and webhooks. An account may be shared with another shop, whose
objects look like ours but for this.
"""

from __future__ import annotations

import re
from typing import Final, TypeGuard

from streamsocial_billing.domain.payment_identity import gateway_key_of

_REFERENCE: Final = r"ss1_[0-9a-f]{56}"
"""As `gateway_key_of` makes it, in every version of the key that was ever released: so far one."""
_WHOLE: Final = re.compile(_REFERENCE).fullmatch
_IN_TEXT: Final = re.compile(rf"(?<![0-9A-Za-z_-]){_REFERENCE}(?![0-9A-Za-z_-])")


def is_our_reference(value: object) -> TypeGuard[str]:
    """True for a text that is one of our references and nothing else."""
    return isinstance(value, str) and _WHOLE(value) is not None


def our_reference(*said: object) -> str | None:
    """The first reference of ours in what an object bears; None: the object is not ours.

    `said` are the fields that may hold it, the surest first: Stripe's `metadata.ref`; PayPal's `invoice_id`,
    `custom_id` (in its lists `custom_field`). It may stand alone or among other words (`ref:user:payment`);
    anything that is no text counts as absent.
    """
    for one in said:
        if one is None:
            continue
        if is_our_reference(one):
            return one
        found = _IN_TEXT.search(one) if isinstance(one, str) and "ss1_" in one else None
        if found is not None:
            return found[0]
    return None


def kind_of_reference(ref: object, user_id: object, payment_id: object) -> str | None:
    """`charge` or `refund`: the call of ours that this reference was made for; None where it is not theirs.

    The reference is a function of the other two, so words that somebody changed or made up do not pass. A
    refund that bears a charge's reference was made at the gateway, which copied it.
    """
    if not is_our_reference(ref) or not isinstance(user_id, str) or not isinstance(payment_id, str):
        return None
    for kind in ("charge", "refund"):
        if ref == gateway_key_of(user_id, kind, payment_id):
            return kind
    return None
