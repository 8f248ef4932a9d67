"""The mapping of Stripe's errors and declines, row by row."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
import stripe

from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    RefundRequest,
)
from streamsocial_billing.gateways.stripe.client import StripeGateway
from streamsocial_billing.gateways.stripe.declines import SOFT
from streamsocial_billing.gateways.stripe.errors import outcome_of_error
from streamsocial_billing.gateways.stripe.limits import not_representable

CHARGE = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "tok_visa")
REFUND = RefundRequest("ss1_r", "u1", "r1", "f" * 64, 999, "EUR", "ch_1")


def raised(kind: Any, status: int | None, error: object = None, **headers: str) -> stripe.StripeError:
    """What the SDK raises for such a reply."""
    made: stripe.StripeError = kind.__new__(kind)
    stripe.StripeError.__init__(
        made, "text", None, status, None if error is None else {"error": error}, headers
    )
    return made


def unconnected(cause: Exception) -> Exception:
    made = raised(stripe.APIConnectionError, None)
    made.__cause__ = cause
    return made


ROWS: list[tuple[Exception, Outcome]] = [
    (unconnected(aiohttp.ConnectionTimeoutError()), NotSent("connect_timeout")),
    (unconnected(TimeoutError()), Ambiguous("timeout")),
    (unconnected(aiohttp.ClientPayloadError()), Ambiguous("cut_body")),
    (unconnected(aiohttp.ServerDisconnectedError()), Ambiguous("reset")),
    (raised(stripe.APIConnectionError, None), NotSent("not_started")),
    (raised(stripe.APIError, 200), Ambiguous("cut_body")),
    (raised(stripe.APIError, 409, {"code": "idempotency_key_in_use"}), Ambiguous("in_flight")),
    (raised(stripe.APIError, 500, {"type": "api_error"}), Ambiguous("http_500")),
    (
        raised(stripe.APIError, 500, {"type": "api_error"}, **{"Idempotent-Replayed": "true"}),
        Ambiguous("http_500", ask_only=True),
    ),
    (raised(stripe.APIError, 503), Ambiguous("http_503")),
    (raised(stripe.RateLimitError, 429, {"code": "rate_limit"}), NotSent("rate_limited")),
    (
        raised(stripe.RateLimitError, 429, {"code": "lock_timeout"}, **{"Retry-After": "2"}),
        NotSent("rate_limited", 2.0),
    ),
    (raised(stripe.AuthenticationError, 401, {"type": "invalid_request_error"}), NotSent("auth")),
    (raised(stripe.PermissionError, 403, {"type": "invalid_request_error"}), NotSent("auth")),
    (raised(stripe.InvalidRequestError, 400, {"code": "parameter_missing"}), Invalid("parameter_missing")),
    (raised(stripe.InvalidRequestError, 404, {"code": "resource_missing"}), Invalid("resource_missing")),
    (
        raised(stripe.InvalidRequestError, 400, {"code": "resource_missing"},
               **{"Idempotent-Replayed": "true"}),
        Invalid("resource_missing", stored=True),
    ),
    (raised(stripe.IdempotencyError, 400, {"type": "idempotency_error"}), KeyMismatch("idempotency_error")),
    (
        raised(stripe.CardError, 402, {"type": "card_error", "code": "card_declined",
                                       "decline_code": "lost_card", "charge": "ch_9"}),
        Declined("lost_card", "ch_9"),
    ),
    (
        raised(stripe.CardError, 402, {"type": "card_error", "code": "card_declined",
                                       "decline_code": "insufficient_funds"}),
        Declined("insufficient_funds", None, soft=True),
    ),
    (raised(stripe.StripeError, None), Ambiguous("internal_error")),
    (ValueError("whatever"), Ambiguous("internal_error")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "outcome"), ROWS)
def test_each_error_of_the_sdk_has_one_outcome(error: Exception, outcome: Outcome) -> None:
    """Only what proves that nothing happened is "not sent", "invalid" or "declined"."""
    assert outcome == outcome_of_error(CHARGE, error)


@pytest.mark.parametrize("code", ["charge_already_refunded", "charge_disputed", "balance_insufficient"])
def test_a_refusal_that_is_about_the_charge_declines_the_refund(code: str) -> None:
    """A refund that Stripe will not make is declined; the same code on a charge is our mistake."""
    error = raised(stripe.InvalidRequestError, 400, {"code": code})
    assert Declined(code) == outcome_of_error(REFUND, error)
    assert Invalid(code) == outcome_of_error(CHARGE, error)


@pytest.mark.parametrize("code", sorted(SOFT))
def test_a_soft_decline_is_marked(code: str) -> None:
    """Each code of the table is soft: worth a new payment."""
    error = raised(stripe.CardError, 402, {"type": "card_error", "decline_code": code})
    assert Declined(code, None, soft=True) == outcome_of_error(CHARGE, error)


@pytest.mark.parametrize("code", ["lost_card", "stolen_card", "expired_card", "fraudulent", "brand_new_code"])
def test_any_other_decline_is_hard(code: str) -> None:
    """A code that is not known to be soft is hard."""
    error = raised(stripe.CardError, 402, {"type": "card_error", "decline_code": code})
    assert Declined(code, None, soft=False) == outcome_of_error(CHARGE, error)


@pytest.mark.parametrize(
    ("amount", "currency", "fits"),
    [
        (999, "EUR", True), (999, "JPY", True), (5120, "KWD", True), (5124, "KWD", False),
        (500, "UGX", True), (501, "UGX", False), (500, "ISK", True), (550, "ISK", False),
    ],
)  # fmt: skip
def test_amounts_that_stripe_cannot_carry_are_refused_unsent(amount: int, currency: str, fits: bool) -> None:
    """Broken ISK and UGX, thousandths of a dinar: an answer without a call, never a rounded charge."""
    assert fits == (not_representable(amount, currency) is None)


async def test_without_its_account_nothing_is_charged() -> None:
    """Where nobody tells whose key it is, a charge is proven unsent."""
    gateway = StripeGateway("sk_test_secret", "http://127.0.0.1:1")
    assert NotSent("account_unknown") == await gateway.charge(CHARGE, timeout_s=2)
    assert "sk_test_secret" not in f"{gateway} {gateway!r} {vars(gateway)}"
    await gateway.close()
