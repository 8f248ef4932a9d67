"""Money that moves at the simulated gateway without a worker of ours."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from support.system import System

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.payment_identity import gateway_key


def charge_beside_us(system: System, event: PaymentEvent, **changes: Any) -> str:
    """A charge under the payment's key that our worker did not make; the gateway's id."""
    key = gateway_key(event)
    body = {
        "amount": event.amount_minor, "currency": event.currency, "payment_method": "pm_card_other",
        "metadata": {"ref": key, "payment_id": event.payment_id, "user_id": event.user_id},
    } | changes  # fmt: skip
    return str(_posted(system, "/v1/charges", key, body)["id"])


def refund_beside_us(system: System, charge: str, amount_minor: int, key: str) -> dict[str, Any]:
    """A refund of a charge, made by a person at the gateway; as the gateway has it."""
    return _posted(system, "/v1/refunds", key, {"charge": charge, "amount": amount_minor})


def _posted(system: System, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own simulator
        system.gateway.url + path, json.dumps(body).encode(),
        {"Idempotency-Key": key, "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        answer: dict[str, Any] = json.load(reply)
    return answer
