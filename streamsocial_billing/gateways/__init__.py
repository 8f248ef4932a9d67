"""Payment gateways behind one protocol."""

from streamsocial_billing.gateways.base import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Gateway,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
    charge_until,
)
from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.gateways.scripted import ScriptedGateway
from streamsocial_billing.gateways.simulated import SimulatedGateway

__all__ = [
    "Ambiguous",
    "ChargeRequest",
    "Declined",
    "Gateway",
    "InstantGateway",
    "Invalid",
    "KeyMismatch",
    "NotSent",
    "Outcome",
    "ScriptedGateway",
    "SimulatedGateway",
    "Succeeded",
    "charge_until",
]
