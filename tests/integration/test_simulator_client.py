"""The gateway client against the real simulator process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from support.until import until

from processes.simulator import Simulator
from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
)
from streamsocial_billing.gateways.base import call_until
from streamsocial_billing.gateways.simulated import SimulatedGateway

REQUEST = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "pm_card_visa")


@pytest.fixture
async def gateway(simulator: Simulator) -> AsyncIterator[SimulatedGateway]:
    client = SimulatedGateway(simulator.url, 300)
    await client.start()
    yield client
    await client.close()


def request(number: int) -> ChargeRequest:
    key, amount = f"ss1_{number}", 100 + number
    return replace(REQUEST, idempotency_key=key, payment_id=f"p{number}", amount_minor=amount)


async def test_a_repeat_finds_the_same_charge(simulator: Simulator, gateway: SimulatedGateway) -> None:
    """The same request gives the same reference, one charge, two counted calls."""
    first = await gateway.charge(REQUEST, timeout_s=60)
    assert isinstance(first, Succeeded)
    assert first == await gateway.charge(REQUEST, timeout_s=60)
    stats = simulator.get("/_stats")
    assert (1, {"EUR": 999}, 2) == (stats["charges"], stats["charged_minor"], stats["calls"])
    assert {"key": "ss1_k", "calls": 2} == simulator.get("/_stats?key=ss1_k")


async def test_other_parameters_under_the_same_key_are_a_mismatch(gateway: SimulatedGateway) -> None:
    """A key stands for one charge of one amount."""
    await gateway.charge(REQUEST, timeout_s=60)
    other = replace(REQUEST, amount_minor=1000)
    assert KeyMismatch("idempotency_error") == await gateway.charge(other, timeout_s=60)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("pm_card_declined", "card_declined"),
        ("pm_card_insufficient_funds", "insufficient_funds"),
        ("pm_card_lost", "lost_card"),
        ("pm_card_expired", "expired_card"),
    ],
)
async def test_a_decline_is_stored_and_replayed(gateway: SimulatedGateway, method: str, reason: str) -> None:
    """A declined key stays declined, with the same failed charge."""
    declined = replace(REQUEST, payment_method=method)
    first = await gateway.charge(declined, timeout_s=60)
    assert isinstance(first, Declined)
    assert reason == first.reason
    assert first.gateway_ref is not None
    assert first == await gateway.charge(declined, timeout_s=60)


async def test_a_request_of_our_making_that_is_wrong_is_invalid(gateway: SimulatedGateway) -> None:
    """What the gateway cannot accept is not repeated."""
    wrong = replace(REQUEST, amount_minor=0)
    assert Invalid("parameter_invalid_integer") == await gateway.charge(wrong, timeout_s=60)


@pytest.mark.parametrize(
    ("fault", "outcome", "charges"),
    [
        ("error_before", Ambiguous("http_500"), 0),
        ("conflict", Ambiguous("in_flight"), 0),
        ("rate_limit", NotSent("rate_limited", 1.0), 0),
        ("drop_after_charge", Ambiguous("reset"), 1),
        ("timeout", Ambiguous("timeout"), 1),
        ("bad_body", Ambiguous("cut_body"), 1),
    ],
)
async def test_each_fault_is_seen_as_what_it_proves(
    simulator: Simulator, gateway: SimulatedGateway, fault: str, outcome: Outcome, charges: int
) -> None:
    """A fault strikes before or after the charge as it says, and the repeat settles it with one charge."""
    simulator.faults(**{fault: 1.0})
    # who is never answered waits for all of it: time enough for a busy machine to charge
    assert outcome == await gateway.charge(REQUEST, timeout_s=8 if fault == "timeout" else 60)
    assert charges == simulator.get("/_stats")["charges"]
    simulator.faults()
    assert isinstance(await gateway.charge(REQUEST, timeout_s=60), Succeeded)
    assert 1 == simulator.get("/_stats")["charges"]


async def test_faults_of_all_kinds_never_charge_twice(
    simulator: Simulator, gateway: SimulatedGateway
) -> None:
    """300 payments through a bad network: each ends charged exactly once, under the reference it reports."""
    rates = {name: 0.1 for name in ("error_before", "drop_after_charge", "timeout", "conflict", "bad_body")}
    simulator.faults(**rates, rate_limit=0.05, retry_after_s=0, timeout_ms=1500, latency_ms=5, seed=3)

    async def pay(number: int) -> tuple[str, Outcome]:
        asked = request(number)
        outcome: Outcome = NotSent("not yet")
        for _ in range(20):
            if not outcome.repeatable:
                break
            outcome, _, _ = await call_until(
                gateway.charge, asked, deadline_s=8, clock=time.monotonic, sleep=asyncio.sleep
            )
        return asked.idempotency_key, outcome

    outcomes = dict(await asyncio.gather(*(pay(number) for number in range(300))))
    simulator.faults()
    page = simulator.get("/v1/charges?limit=1000")
    data = page["data"]
    assert isinstance(data, list)
    assert 300 == len(data)
    assert {charge["metadata"]["ref"]: Succeeded(charge["id"]) for charge in data} == outcomes


async def test_a_slow_connection_keeps_its_time_out(
    simulator: Simulator, gateway: SimulatedGateway
) -> None:
    """A reply that comes too late is ambiguous at the time-out, not later."""
    simulator.faults(latency_ms=60_000)
    started = time.monotonic()
    assert Ambiguous("timeout") == await gateway.charge(REQUEST, timeout_s=4)
    assert time.monotonic() - started < 45


async def arrived(simulator: Simulator) -> None:
    """Return once a call has come to the simulator."""
    await asyncio.to_thread(until, lambda: simulator.get("/_stats")["calls"] > 0, "a call has come")


async def test_the_same_key_at_the_same_time_is_a_conflict(
    simulator: Simulator, gateway: SimulatedGateway
) -> None:
    """While the first request with a key is under way, a second one is told so."""
    simulator.faults(latency_ms=8000)
    first = asyncio.create_task(gateway.charge(REQUEST, timeout_s=60))
    await arrived(simulator)
    assert Ambiguous("in_flight") == await gateway.charge(REQUEST, timeout_s=60)
    assert isinstance(await first, Succeeded)


async def test_a_gateway_that_is_not_there_proves_that_nothing_was_sent() -> None:
    """A refused connection and an unknown host are "not sent"."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "http://no-such-host.invalid"):
            client = SimulatedGateway(url)
            await client.start()
            assert NotSent("unreachable") == await client.charge(REQUEST, timeout_s=60)
            await client.close()


async def test_waiting_for_a_free_connection_proves_that_nothing_was_sent(
    simulator: Simulator,
) -> None:
    """A charge that never got a connection within its time is "not sent": the gateway has not seen it."""
    simulator.faults(latency_ms=60_000)
    client = SimulatedGateway(simulator.url, 1)
    await client.start()
    first = asyncio.create_task(client.charge(request(1), timeout_s=60))
    await arrived(simulator)
    assert NotSent("no_free_connection") == await client.charge(request(2), timeout_s=0.5)
    assert not first.done()
    assert 0 == simulator.get("/_stats?key=ss1_2")["calls"]
    await client.close()
    assert not isinstance(await first, Succeeded)


async def test_connections_are_reused(simulator: Simulator) -> None:
    """A hundred charges in turn go over one connection."""
    accepted, ended = 0, asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        back, forth = await asyncio.open_connection("127.0.0.1", simulator.port)
        await asyncio.gather(_pump(reader, forth), _pump(back, writer))
        ended.set()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        client = SimulatedGateway(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.start()
        for number in range(100):
            assert isinstance(await client.charge(request(number), timeout_s=60), Succeeded)
        await client.close()
        await ended.wait()
    assert 1 == accepted


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
