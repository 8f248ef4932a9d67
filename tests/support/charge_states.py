"""The charge state after a result of which a test says only what the state depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from streamsocial_billing.domain.charge_state import charge_state_after
from streamsocial_billing.domain.results import ChargeResult
from tables.charges import ChargeState


def after(state: Mapping[str, Any] | None, **said: Any) -> ChargeState:
    """The state of `user_id` (left out: u1) after a result; `said` are fields of it."""
    about = {
        "payment_id": "p1", "user_id": "u1", "action": "charge", "product": "gift", "status": "succeeded",
        "reason": None, "replayed": False, "amount_minor": 500, "currency": "USD", "gateway": "simulated",
        "gateway_ref": None, "attempt": 1, "requested_at": 1, "processed_at": 1, "source": None,
    }  # fmt: skip
    return charge_state_after(cast("ChargeState | None", state), ChargeResult(**about | said))
