"""What every gateway keeps: our simulator, a Stripe of charges, a Stripe of intents that others wrote."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.local_stripe import DECLINES, GOOD, LocalStripe
from support.stripe_proxy import ACCOUNT, StripeProxy
from support.stripe_server import StripeServer

from processes.simulator import Simulator
from streamsocial_billing.domain.gateway_calls import (
    Absent,
    ChargeRequest,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    Owner,
    Query,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.gateways.stripe.client import StripeGateway

CHARGE = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "")
START_MS = int(time.time() * 1000) - 60_000


def key(name: str, action: str = "charge") -> str:
    """Our reference of u1's payment of this name: lists tell by it what is ours."""
    return gateway_key_of("u1", action, name)


@dataclass(frozen=True)
class Place:
    """A gateway with the payment methods that its server knows."""

    gateway: Gateway
    good: str
    declined: str

    def charge(self, name: str, **changes: object) -> ChargeRequest:
        """A charge of its own key."""
        made = replace(CHARGE, idempotency_key=key(name), payment_id=name, payment_method=self.good)
        return replace(made, **changes)


@pytest.fixture(scope="module")
def stripe_server() -> Iterator[StripeServer]:
    with StripeServer() as server:
        yield server


@pytest.fixture(scope="module")
def local_stripe() -> Iterator[LocalStripe]:
    with LocalStripe() as server:
        yield server


@pytest.fixture(params=["simulated", "stripe", "intents"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "simulated":
        with Simulator(tmp_path / "ledger.db") as process:
            simulated = SimulatedGateway(process.url)
            await simulated.start()
            yield Place(simulated, "pm_card_visa", "pm_card_declined")
            await simulated.close()
        return
    if request.param == "intents":
        local: LocalStripe = request.getfixturevalue("local_stripe")
        with StripeProxy(local.url) as proxy:
            intents = StripeGateway("sk_test_contract", proxy.url, account=ACCOUNT)
            await intents.start()
            yield Place(intents, local.saved(GOOD), local.saved(DECLINES))
            await intents.close()
        return
    server: StripeServer = request.getfixturevalue("stripe_server")
    # it tells neither whose key it is nor a list of disputes
    stripe = StripeGateway(
        "sk_test_contract", server.url, account="acct_default", kinds=("charge", "refund")
    )
    await stripe.start()
    yield Place(stripe, "tok_visa", "tok_chargeDeclined")
    await stripe.close()


def asked(charge: ChargeRequest, action: str = "charge", charge_ref: str | None = None) -> Query:
    return Query(
        charge.idempotency_key, action, charge.user_id, charge.payment_id, charge.amount_minor,
        charge.currency, START_MS, charge_ref, payment_method=charge.payment_method,
    )  # fmt: skip


def refund_of(charge: ChargeRequest, ref: str, name: str, amount_minor: int) -> RefundRequest:
    return RefundRequest(
        key(name, "refund"), charge.user_id, name, charge.fingerprint, amount_minor, charge.currency, ref
    )


async def test_a_repeat_with_the_same_key_is_the_same_charge(place: Place) -> None:
    """A charge succeeds once; its repeat brings the same reference."""
    charge = place.charge("repeat")
    first = await place.gateway.charge(charge, timeout_s=60)
    assert isinstance(first, Succeeded)
    assert first == await place.gateway.charge(charge, timeout_s=60)


async def test_other_parameters_under_a_key_are_a_mismatch(place: Place) -> None:
    """A key stands for one charge of one amount."""
    charge = place.charge("mismatch")
    await place.gateway.charge(charge, timeout_s=60)
    other = replace(charge, amount_minor=1000)
    assert KeyMismatch("idempotency_error") == await place.gateway.charge(other, timeout_s=60)


async def test_a_decline_is_a_value_and_stays(place: Place) -> None:
    """A declined key is declined again, for the same reason."""
    charge = place.charge("declined", payment_method=place.declined)
    first = await place.gateway.charge(charge, timeout_s=60)
    assert isinstance(first, Declined)
    assert first == await place.gateway.charge(charge, timeout_s=60)


async def test_a_wrong_request_of_our_making_is_invalid(place: Place) -> None:
    """What the gateway cannot accept is neither a decline nor doubt."""
    assert isinstance(await place.gateway.charge(place.charge("bad", amount_minor=0), timeout_s=60), Invalid)


async def test_find_tells_what_is_there_under_our_reference(place: Place) -> None:
    """A charge is found with its user, amount, currency; what was never made is absent."""
    charge = place.charge("found")
    assert Absent() == await place.gateway.find(asked(charge), timeout_s=60)
    made = await place.gateway.charge(charge, timeout_s=60)
    assert isinstance(made, Succeeded)
    found = await place.gateway.find(asked(charge), timeout_s=60)
    assert isinstance(found, Found)
    assert Found(made.gateway_ref, "succeeded", None, 999, "EUR", "u1", "found") == replace(
        found, intent=None, intent_charge=None
    )
    assert found.agrees(asked(charge))
    assert not found.agrees(asked(replace(charge, amount_minor=998)))


async def test_partial_refunds_happen_once_per_key(place: Place) -> None:
    """Two equal partial refunds both pass, a repeat is the same refund, each is found."""
    charge = place.charge("refunded")
    made = await place.gateway.charge(charge, timeout_s=60)
    assert isinstance(made, Succeeded)
    one, two = (refund_of(charge, made.gateway_ref, f"part{n}", 300) for n in (1, 2))
    first, second = [await place.gateway.refund(refund, timeout_s=60) for refund in (one, two)]
    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert first != second
    assert first == await place.gateway.refund(one, timeout_s=60)
    question = Query(key("part2", "refund"), "refund", "u1", "part2", 300, "EUR", START_MS, made.gateway_ref)
    found = await place.gateway.find(question, timeout_s=60)
    assert Found(second.gateway_ref, "succeeded", None, 300, "EUR", "u1", "part2") == found


async def test_a_refund_beyond_the_charge_moves_nothing(place: Place) -> None:
    """The gateway refuses it, and says so."""
    charge = place.charge("beyond")
    made = await place.gateway.charge(charge, timeout_s=60)
    assert isinstance(made, Succeeded)
    too_much = refund_of(charge, made.gateway_ref, "too-much", 1000)
    assert isinstance(await place.gateway.refund(too_much, timeout_s=60), Declined | Invalid)


async def test_movements_are_each_told_once_over_all_pages(place: Place) -> None:
    """Charges and refunds of the window, with our reference; none outside it."""
    charges = [place.charge(f"listed{n}") for n in range(105)]
    refs = [await place.gateway.charge(charge, timeout_s=60) for charge in charges]
    assert all(isinstance(ref, Succeeded) for ref in refs)
    now_ms = int(time.time() * 1000) + 60_000
    moved = [one async for one in place.gateway.movements(START_MS, now_ms)]
    assert len(moved) == len({one.gateway_ref for one in moved})
    keys = {one.ref for one in moved if one.kind == "charge"}
    assert {charge.idempotency_key for charge in charges} <= keys
    assert [] == [one async for one in place.gateway.movements(0, START_MS)]


async def test_a_charge_at_stripe_says_whose_it_is(stripe_server: StripeServer) -> None:
    """Our words come back as they went; a charge that is not there is absent."""
    gateway = StripeGateway("sk_test_owner", stripe_server.url, account="acct_default")
    made = await gateway.charge(replace(CHARGE, payment_method="tok_visa"), timeout_s=60)
    assert isinstance(made, Succeeded)
    assert Owner("u1", "p1", "ss1_k") == await gateway.owner_of(made.gateway_ref, timeout_s=60)
    assert Absent() == await gateway.owner_of("ch_none", timeout_s=60)
    await gateway.close()


async def test_the_simulator_fails_a_refund_on_demand(tmp_path: Path) -> None:
    """A failed refund is a decline, stays one, is found as one, and gives nothing back."""
    with Simulator(tmp_path / "ledger.db") as process:
        gateway = SimulatedGateway(process.url)
        await gateway.start()
        charge = replace(CHARGE, payment_method="pm_card_refund_fail")
        made = await gateway.charge(charge, timeout_s=60)
        assert isinstance(made, Succeeded)
        refund = refund_of(charge, made.gateway_ref, "failing", 999)
        first = await gateway.refund(refund, timeout_s=60)
        assert isinstance(first, Declined)
        assert "expired_or_canceled_card" == first.reason
        assert first == await gateway.refund(refund, timeout_s=60)
        ours = key("failing", "refund")
        question = Query(ours, "refund", "u1", "failing", 999, "EUR", START_MS, made.gateway_ref)
        found = await gateway.find(question, timeout_s=60)
        assert isinstance(found, Found)
        assert ("declined", first.reason) == (found.status, found.reason)
        assert first.gateway_ref == found.gateway_ref
        assert {"EUR": 0} == process.get("/_stats")["refunded_minor"]
        await gateway.close()
