"""What a decline of Stripe says: its code, and whether another payment may pass.

docs.stripe.com/declines/codes, docs.stripe.com/declines/network-codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamsocial_billing.domain.foreign_text import code_in
from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED

SOFT: Final = frozenset({
    "approve_with_id", "authentication_required", "call_issuer", "card_velocity_exceeded", "do_not_honor",
    "generic_decline", "insufficient_funds", "issuer_not_available", "no_action_taken", "not_permitted",
    "processing_error", "reenter_transaction", "service_not_allowed", "transaction_not_allowed",
    "try_again_later", "withdrawal_count_limit_exceeded",
})  # fmt: skip
"""Declines that another payment, days later, may not meet. Any other code is hard: the card is lost,
stolen, expired, closed or the code unknown to us; repeating a hard decline costs the merchant standing."""

ADVICE: Final = {"do_not_try_again": False, "confirm_card_data": False, "try_again_later": True}
"""`advice_code` (docs.stripe.com/declines/codes): may another payment pass? It counts before the code."""
NETWORK_ADVICE: Final = {
    "01": False, "02": True, "03": False, "21": False, "24": True, "25": True, "26": True, "27": True,
    "28": True, "29": True, "30": True,
}  # fmt: skip
"""`network_advice_code`: Mastercard's merchant advice."""
NEVER_AGAIN: Final = frozenset(
    {"04", "07", "12", "14", "15", "41", "43", "46", "57", "R0", "R1", "R3"}
)
"""`network_decline_code`: Visa's category 1, which the issuer will never approve."""


def decline_code(error: Mapping[str, Any]) -> str:
    """The decline code of an error, else its code."""
    if error.get("code") == AUTHENTICATION_REQUIRED:
        return AUTHENTICATION_REQUIRED
    for name in ("decline_code", "code", "type"):
        code = code_in(error.get(name))
        if code is not None:
            return code
    return "declined"


def is_soft(reason: str | None, error: Mapping[str, Any]) -> bool:
    """True where another payment, days later, may pass: what the issuer advises counts before the code."""
    advised = ADVICE.get(str(error.get("advice_code")))
    if advised is None:
        advised = NETWORK_ADVICE.get(str(error.get("network_advice_code")))
    if advised is not None:
        return advised
    return reason in SOFT and error.get("network_decline_code") not in NEVER_AGAIN
