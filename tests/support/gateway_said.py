"""Messages of a gateway, as a receiver puts them on `gateway-events`."""

from itertools import count
from typing import Any

from support.one_task import OneTask

from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.settings import GATEWAY_EVENTS

_numbers = count(1)


def report(kind: str, status: str, gateway_ref: str, **fields: Any) -> GatewayEvent:
    """About money of the user u1, 5.00 USD, at the simulated gateway; each one a message of its own."""
    filled: dict[str, Any] = {
        "event_id": f"evt_{next(_numbers)}", "gateway": "simulated", "user_id": "u1", "amount_minor": 500,
        "currency": "USD", "occurred_at": 1_764_600_000_000,
    } | fields  # fmt: skip
    return GatewayEvent(kind=kind, status=status, gateway_ref=gateway_ref, **filled)


def ours(kind: str, status: str, payment_id: str, gateway_ref: str, **fields: Any) -> GatewayEvent:
    """About a payment of ours: with its id, with our reference."""
    ref = gateway_key_of("u1", kind, payment_id)
    return report(kind, status, gateway_ref, **{"payment_id": payment_id, "ref": ref} | fields)


def foreign(kind: str, status: str, gateway_ref: str, **fields: Any) -> GatewayEvent:
    """A refund or dispute made at the gateway, of the charge c1."""
    return report(kind, status, gateway_ref, **{"charge_id": "c1"} | fields)


def say(lab: OneTask, *messages: GatewayEvent) -> list[dict[str, Any]]:
    """Append the messages, handle them; the results that this brought."""
    before = len(lab.results())
    for message in messages:
        lab.append(GATEWAY_EVENTS, message.user_id.encode(), message.to_bytes())
    lab.handle()
    return lab.results()[before:]
