"""What an error of Stripe's SDK proves of the call: the border that none of its exceptions passes."""

from __future__ import annotations

from collections.abc import Mapping

import stripe

from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Invalid,
    NotSent,
    Outcome,
    RefundRequest,
)
from streamsocial_billing.gateways.http import outcome_of_exception
from streamsocial_billing.gateways.stripe import shapes as stripe_shapes
from streamsocial_billing.gateways.stripe.intents import outcome_of_call


def outcome_of_error(
    request: ChargeRequest | RefundRequest, error: Exception, *, intent: bool = False
) -> Outcome:
    """The outcome of what the SDK raised: by our connection's error, or by the reply's status and body.

    `intent`: the call was one for a PaymentIntent.
    """
    if isinstance(error, stripe.APIConnectionError):
        cause = error.__cause__
        return outcome_of_exception(cause) if isinstance(cause, Exception) else NotSent("not_started")
    if not isinstance(error, stripe.StripeError) or error.http_status is None:
        return Ambiguous("internal_error")
    status, body = error.http_status, error.json_body
    if 200 <= status < 300:
        return Ambiguous("cut_body")  # the SDK: APIError "Invalid response body", status 200
    reply, headers = body if isinstance(body, dict) else None, error.headers or {}
    if intent and isinstance(request, ChargeRequest):
        return outcome_of_call(request, status, headers, reply)
    outcome = stripe_shapes.outcome_of_reply(request, status, headers, reply)
    if isinstance(outcome, Invalid) and replayed(headers):
        return Invalid(outcome.reason, stored=True)
    return outcome


def replayed(headers: Mapping[str, str]) -> bool:
    """True for a reply that Stripe keeps under the key."""
    known = {name.lower(): value for name, value in headers.items()}
    return known.get(stripe_shapes.REPLAY_MARK) == "true"


def question_failed(error: Exception) -> NotSent | Ambiguous:
    """What a question that failed says: nothing of the payment, whatever the refusal."""
    if isinstance(error, stripe.StripeError) and error.http_status is not None:
        return NotSent("auth") if error.http_status in (401, 403) else Ambiguous(f"http_{error.http_status}")
    cause = error.__cause__ if isinstance(error, stripe.APIConnectionError) else error
    return outcome_of_exception(cause) if isinstance(cause, Exception) else NotSent("not_started")
