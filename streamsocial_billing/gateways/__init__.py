"""Payment gateways behind one protocol."""

from streamsocial_billing.gateways.base import (
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Declined,
    Found,
    Gateway,
    Invalid,
    KeyMismatch,
    ListFailed,
    Movement,
    NotSent,
    Outcome,
    Owner,
    Query,
    RefundRequest,
    Succeeded,
    Traits,
    call_until,
    charge_until,
)
from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.gateways.scripted import ScriptedGateway
from streamsocial_billing.gateways.simulated import SimulatedGateway

__all__ = [
    "Absent",
    "Ambiguous",
    "Answer",
    "ChargeRequest",
    "Declined",
    "Found",
    "Gateway",
    "InstantGateway",
    "Invalid",
    "KeyMismatch",
    "ListFailed",
    "Movement",
    "NotSent",
    "Outcome",
    "Owner",
    "Query",
    "RefundRequest",
    "ScriptedGateway",
    "SimulatedGateway",
    "Succeeded",
    "Traits",
    "call_until",
    "charge_until",
]
