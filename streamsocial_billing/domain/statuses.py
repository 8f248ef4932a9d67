"""The statuses of a payment, each list of them once."""

from __future__ import annotations

from typing import Final

WITHOUT_MONEY: Final = ("declined", "failed", "rejected")
"""Final, and no money moved."""
FINAL: Final = ("succeeded", *WITHOUT_MONEY)
OPEN: Final = ("unknown", "parked")
STATUSES: Final = (*FINAL, *OPEN)
BY_HAND: Final = ("succeeded", "declined", "failed")
"""What a person may say of a parked payment."""
NOT_STORED: Final = frozenset(
    {"idempotency_mismatch", "expired", "unsupported_action", "gateway_not_configured"}
)
"""Reasons of rejections that leave no entry: they say nothing of the payment with that id."""
