"""Every request of the Stripe adapter, checked against Stripe's own OpenAPI document by stripe-mock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest
import stripe
from msgspec.structs import replace
from support.stripe_mock import StripeMock

from streamsocial_billing.domain.gateway_calls import Cancellation, ChargeRequest, Query, RefundRequest
from streamsocial_billing.gateways.stripe.client import StripeGateway

CHARGE = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "tok_visa")
REFUND = RefundRequest("ss1_r", "u1", "r1", "f" * 64, 300, "EUR", "ch_1")
CLOCK_MS = int(time.time() * 1000)


@pytest.fixture
def server() -> Iterator[StripeMock]:
    with StripeMock() as mock:
        yield mock


@pytest.fixture
async def gateway(server: StripeMock) -> AsyncIterator[StripeGateway]:
    made = StripeGateway("sk_test_123", server.url)
    yield made
    await made.close()


async def test_every_request_has_a_shape_that_stripe_accepts(
    server: StripeMock, gateway: StripeGateway
) -> None:
    """Account, charges of all kinds of methods, refund, search, lists with fees, one charge: all 200."""
    await gateway.start()
    for method in ("tok_visa", "cus_1/card_1", "cus_1"):
        await gateway.charge(replace(CHARGE, payment_method=method), timeout_s=60)
    await gateway.refund(REFUND, timeout_s=60)
    query = Query("ss1_k", "charge", "u1", "p1", 999, "EUR", CLOCK_MS)
    await gateway.find(query, timeout_s=60)
    await gateway.find(replace(query, action="refund", charge_ref="ch_1"), timeout_s=60)
    await gateway.owner_of("ch_1", timeout_s=60)
    assert 3 == len([one async for one in gateway.movements(0, CLOCK_MS)])
    assert {
        ("GET /v1/account", 200), ("POST /v1/charges", 200), ("POST /v1/refunds", 200),
        ("GET /v1/charges/search", 200), ("GET /v1/charges/ch_1", 200), ("GET /v1/charges", 200),
        ("GET /v1/refunds", 200), ("GET /v1/disputes", 200),
    } == server.wait(11)  # fmt: skip


async def test_every_request_about_an_intent_has_a_shape_that_stripe_accepts(
    server: StripeMock, gateway: StripeGateway
) -> None:
    """Made off-session, asked for by its id, searched, listed, canceled, refunded, owned: all 200."""
    await gateway.start()
    await gateway.charge(replace(CHARGE, payment_method="cus_1/pm_1"), timeout_s=60)
    await gateway.refund(replace(REFUND, charge_ref="pi_1"), timeout_s=60)
    query = Query("ss1_k", "charge", "u1", "p1", 999, "EUR", CLOCK_MS, payment_method="cus_1/pm_1")
    await gateway.find(query, timeout_s=60)
    narrowed = {"created": {"gte": 1, "lt": 2}, "customer": "cus_1"}  # the search has found it before
    assert [one async for one in gateway._questions.rows("intent", narrowed)]  # noqa: SLF001
    await gateway.find(replace(query, intent="pi_1"), timeout_s=60)
    await gateway.find(replace(query, action="refund", charge_ref="pi_1"), timeout_s=60)
    await gateway.cancel(Cancellation(replace(query, intent="pi_1")), timeout_s=60)
    await gateway.owner_of("pi_1", timeout_s=60)
    assert {
        ("GET /v1/account", 200), ("POST /v1/payment_intents", 200), ("POST /v1/refunds", 200),
        ("GET /v1/payment_intents/search", 200), ("GET /v1/payment_intents", 200),
        ("GET /v1/payment_intents/pi_1", 200), ("GET /v1/refunds", 200),
        ("POST /v1/payment_intents/pi_1/cancel", 200),
    } == server.wait(9)  # fmt: skip


@pytest.mark.parametrize("wrong", [{"amount": "much"}, {"amount_minor": 999}, {"metadata": "ss1_k"}])
async def test_a_wrong_shape_would_be_seen(server: StripeMock, wrong: dict[str, object]) -> None:
    """The server refuses a wrong type, an unknown parameter."""
    client = stripe.StripeClient("sk_test_123", base_addresses={"api": server.url}, max_network_retries=0)
    params = {"amount": 999, "currency": "eur", "source": "tok_visa", **wrong}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.charges.create(params)  # type: ignore[arg-type]
    assert {("POST /v1/charges", 400)} == server.wait(1)


