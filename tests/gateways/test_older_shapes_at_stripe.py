"""A request whose shape changed, at a Stripe that somebody else wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.stripe_server import StripeServer

from streamsocial_billing.domain.gateway_calls import ChargeRequest, KeyMismatch, Outcome, Succeeded
from streamsocial_billing.gateways.stripe.client import Shape, StripeGateway

OLD = {"amount": 999, "currency": "eur", "source": "tok_visa", "metadata": {"ref": "ss1_k", "more": "x" * 99}}
NEW = OLD | {"metadata": {"ref": "ss1_k"}}


class Shaped(StripeGateway):
    """Sends the given shapes of every charge."""

    def __init__(self, url: str, *shapes: dict[str, Any]) -> None:
        super().__init__("sk_test_contract", url, account="acct_default")
        self._shapes = list(shapes)

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Once, in its shapes."""
        create = self._client.v1.charges.create_async
        return await self._send(request, timeout_s, [Shape(create, one) for one in self._shapes])


@pytest.fixture(scope="module")
def server() -> Iterator[StripeServer]:
    with StripeServer() as server:
        yield server


async def called(server: StripeServer, key: str, *shapes: dict[str, Any]) -> Outcome:
    """One call in these shapes, the newest first."""
    gateway = Shaped(server.url, *shapes)
    try:
        await gateway.start()
        request = ChargeRequest(key, "u1", "p1", "f", 999, "EUR", "tok_visa")
        return await gateway.charge(request, timeout_s=60)
    finally:
        await gateway.close()


async def test_a_call_of_an_older_release_is_answered_by_its_shape(server: StripeServer) -> None:
    """The same charge; without the older shape it is a mismatch; a key that is new gets the newest shape."""
    made = await called(server, "ss1_older", OLD)
    assert isinstance(made, Succeeded), made
    assert made == await called(server, "ss1_older", NEW, OLD)
    assert KeyMismatch("idempotency_error") == await called(server, "ss1_older", NEW)
    fresh = await called(server, "ss1_fresh", NEW, OLD)
    assert isinstance(fresh, Succeeded)
    assert fresh == await called(server, "ss1_fresh", NEW)
