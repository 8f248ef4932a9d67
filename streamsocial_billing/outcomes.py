"""What a gateway's answer means for a payment."""

from dataclasses import dataclass

from streamsocial_billing.gateways.base import (
    Ambiguous,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status with its reason; `ambiguous`: a call may have been executed unseen; `error`: for people."""

    status: str
    reason: str | None
    gateway_ref: str | None = None
    ambiguous: bool = False
    error: str | None = None


def verdict(outcome: Outcome) -> Verdict:
    """Map an outcome to a status (payments.md, "Outcomes"): all else than proven-unsent is `unknown`."""
    match outcome:
        case Succeeded(gateway_ref):
            return Verdict("succeeded", None, gateway_ref)
        case Declined(reason, gateway_ref):
            return Verdict("declined", reason, gateway_ref)
        case Invalid(reason):
            return Verdict("failed", "invalid_request", error=reason)
        case KeyMismatch(reason):
            return Verdict("parked", "key_mismatch_at_gateway", ambiguous=True, error=reason)
        case NotSent(reason):
            return Verdict("unknown", "gateway_unavailable", error=reason)
        case Ambiguous(reason):
            return Verdict("unknown", "outcome_unknown", ambiguous=True, error=reason)


INTERNAL_ERROR = Verdict("unknown", "internal_error", ambiguous=True, error="internal_error")
"""After a call has started no exception ends in a dead letter (payments.md)."""
