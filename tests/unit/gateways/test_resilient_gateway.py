"""A gateway behind its guard: the bound on calls in flight, what counts as failing, who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from layer_kit.virtual_time import VirtualTimeLoop
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.gateway_calls import (
    NOT_CALLED,
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.gateways import resilient as resilient
from streamsocial_billing.gateways.breaker import Rules
from streamsocial_billing.gateways.resilient import ResilientGateway, went_well

OK = "pm_card_visa"


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    monkeypatch.setattr(resilient, "time", SimpleNamespace(monotonic=loop.time))
    yield loop
    loop.end()


class Counting(ScriptedGateway):
    """Knows how many calls were in flight at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    async def _play(self, *args: Any) -> Outcome:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super()._play(*args)
        finally:
            self.now -= 1


def guard(gateway: ScriptedGateway, permits: int = 2, why: str | None = None) -> ResilientGateway:
    """The gateway behind a guard that opens after three failing payments."""
    return ResilientGateway(gateway, permits, Rules(in_a_row=3), lambda name: why)


def charge(gateway: ResilientGateway, key: str, script: str = OK, timeout_s: float = 4.0) -> Any:
    """One call that plays the script."""
    request = ChargeRequest(key, "u1", key, "f", 500, "USD", script)
    return gateway.charge(request, timeout_s=timeout_s)


def all_of(loop: VirtualTimeLoop, *calls: Any) -> list[Outcome]:
    """Every call at once; their outcomes."""

    async def at_once() -> list[Outcome]:
        outcomes: list[Outcome] = await asyncio.gather(*calls)
        return outcomes

    return loop.run_until_complete(at_once())


def test_a_guarded_gateway_is_a_gateway_like_any(loop: VirtualTimeLoop) -> None:
    """Name, account, traits, charge, refund, question, list: those of the gateway itself."""
    inner = ScriptedGateway()
    gateway = guard(inner)
    refund = RefundRequest("k2", "u1", "p2", "f", 500, "USD", "ch_scripted_1")
    query = Query("k1", "charge", "u1", "k1", 500, "USD", 0)

    async def listed() -> list[str]:
        return [one.gateway_ref async for one in gateway.movements(0, 10**15)]

    async def everything() -> list[Any]:
        await gateway.start()
        said = [
            await charge(gateway, "k1"), await gateway.refund(refund, timeout_s=4),
            await gateway.find(query, timeout_s=4), await listed(),
        ]  # fmt: skip
        await gateway.close()
        return said

    charged, refunded, found, moved = loop.run_until_complete(everything())
    assert (inner.name, inner.account, inner.traits) == (gateway.name, gateway.account, gateway.traits)
    assert (Succeeded("ch_scripted_1"), Succeeded("re_scripted_1")) == (charged, refunded)
    assert "ch_scripted_1" == found.gateway_ref
    assert ["ch_scripted_1", "re_scripted_1"] == moved


def test_no_more_calls_than_permits_are_in_flight_and_each_comes_in_its_turn(loop: VirtualTimeLoop) -> None:
    """Ten calls of a second, two permits: five seconds, in the order of arrival, with what time is left."""
    inner = Counting()
    gateway = guard(inner)
    calls = [charge(gateway, f"k{number}", "succeeded+1", timeout_s=20) for number in range(10)]
    outcomes = all_of(loop, *calls)

    assert 10 == sum(isinstance(one, Succeeded) for one in outcomes)
    assert (2, 5.0) == (inner.most, loop.time())
    assert [(f"k{number}", 20.0 - number // 2) for number in range(10)] == inner.calls


def test_who_waits_too_long_for_a_place_is_proven_unsent(loop: VirtualTimeLoop) -> None:
    """4/5 of its time; that is our own crowd, no failure of the gateway. The permits are there afterwards."""
    gateway = guard(ScriptedGateway(), permits=1)
    slow, *waiting = all_of(loop, *(charge(gateway, f"k{n}", "succeeded+3.9") for n in range(5)))
    assert isinstance(slow, Succeeded)
    assert [NotSent("no_free_connection")] * 4 == waiting
    assert ("closed", 3.9) == (gateway.breaker.state, loop.time())
    assert isinstance(all_of(loop, charge(gateway, "k9"))[0], Succeeded)


def test_a_cancelled_call_gives_its_place_back_whenever_it_is_cancelled(loop: VirtualTimeLoop) -> None:
    """In flight, waiting, and at the very moment at which it was handed a place."""
    gateway = guard(ScriptedGateway(), permits=1)

    async def scene() -> Outcome:
        first, second, third = (
            asyncio.ensure_future(charge(gateway, f"k{n}", "succeeded+1")) for n in range(3)
        )
        await asyncio.sleep(0.5)
        second.cancel()  # waits
        first.cancel()  # in flight; its place goes to the third ...
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        third.cancel()  # ... which is cancelled with it in its hand
        await asyncio.gather(first, second, third, return_exceptions=True)
        outcome: Outcome = await charge(gateway, "k9", timeout_s=1)
        return outcome

    assert isinstance(loop.run_until_complete(scene()), Succeeded)


def test_when_the_breaker_opens_nobody_waits_for_a_place_any_longer(loop: VirtualTimeLoop) -> None:
    """Three calls hang; when they time out, all who wait are told at once, and whoever comes."""
    inner = ScriptedGateway()
    gateway = guard(inner, permits=3)
    hung = [charge(gateway, f"h{number}", "succeeded+99", timeout_s=2) for number in range(3)]
    waiting = [charge(gateway, f"w{number}", timeout_s=60) for number in range(50)]
    outcomes = all_of(loop, *hung, *waiting)

    assert [Ambiguous("timeout")] * 3 + [NotSent("breaker_open")] * 50 == outcomes
    assert (2.0, 3) == (loop.time(), len(inner.calls))
    assert [NotSent("breaker_open")] == all_of(loop, charge(gateway, "k9"))


def test_a_probe_opens_the_way_for_all(loop: VirtualTimeLoop) -> None:
    """After the pause one of many is called; once it went well, everybody is."""
    inner = ScriptedGateway()
    gateway = guard(inner, permits=9)
    all_of(loop, *(charge(gateway, f"h{number}", "not_sent") for number in range(3)))
    loop.settle(1.0)
    before = len(inner.calls)
    outcomes = all_of(loop, *(charge(gateway, f"k{number}", "succeeded+0.1") for number in range(5)))
    assert (1, 4) == (len(inner.calls) - before, outcomes.count(NotSent("breaker_open")))
    assert 5 == sum(
        isinstance(one, Succeeded) for one in all_of(loop, *(charge(gateway, f"k{n}") for n in range(5)))
    )


def test_a_gateway_that_is_not_called_is_not_started_either(loop: VirtualTimeLoop) -> None:
    """A start may ask whose key it is, and hang as a call would. A call that goes through starts it, too."""
    started = []

    class Starting(ScriptedGateway):
        async def start(self) -> None:
            started.append(loop.time())

    gateway = guard(Starting(), permits=9)
    loop.run_until_complete(gateway.start())
    loop.run_until_complete(guard(Starting(), why="stopped").start())
    all_of(loop, *(charge(gateway, f"h{number}", "not_sent") for number in range(3)))
    loop.run_until_complete(gateway.start())
    assert [0.0] * 4 == started
    loop.settle(1.0)
    loop.run_until_complete(gateway.start())
    assert [*[0.0] * 4, 1.0] == started


def test_a_change_is_said_once(loop: VirtualTimeLoop, caplog: pytest.LogCaptureFixture) -> None:
    """One line when it opens, one when it closes, however many payments meet it and calls are tried."""
    gateway = guard(ScriptedGateway(), permits=9)
    caplog.set_level("INFO")
    all_of(loop, *(charge(gateway, f"h{number}", "not_sent") for number in range(9)))
    all_of(loop, *(charge(gateway, f"k{number}") for number in range(9)))
    loop.settle(1.0)
    all_of(loop, charge(gateway, "k"))
    said = [(one.levelname, one.getMessage().rpartition(":")[0]) for one in caplog.records]
    assert [
        ("ERROR", "gateway simulated: breaker closed -> open"),
        ("WARNING", "gateway simulated: breaker half_open -> closed"),
    ] == said


def test_a_probe_that_is_not_sent_uses_up_no_try(loop: VirtualTimeLoop) -> None:
    """For the payment that went ahead nothing has happened: it waits as the others do."""
    gateway = guard(ScriptedGateway(), permits=9)
    all_of(loop, *(charge(gateway, f"h{number}", "not_sent@7") for number in range(3)))
    loop.settle(1.0)
    assert [NotSent("breaker_open", 7.0)] == all_of(loop, charge(gateway, "k1", "not_sent@7"))
    loop.settle(2.0)
    assert [Ambiguous("reset")] == all_of(loop, charge(gateway, "k2", "lost")), "a doubt stays a doubt"


@pytest.mark.parametrize("why", sorted(NOT_CALLED))
def test_a_gateway_that_must_not_be_called_is_not(loop: VirtualTimeLoop, why: str) -> None:
    """Neither charges nor questions; the breaker learns nothing of it, the place is free again."""
    inner = ScriptedGateway()
    gateway = guard(inner, permits=1, why=why)
    assert [NotSent(why)] * 3 == all_of(loop, *(charge(gateway, f"k{number}") for number in range(3)))
    query = Query("k1", "charge", "u1", "k1", 500, "USD", 0)
    assert NotSent(why) == loop.run_until_complete(gateway.find(query, timeout_s=1))
    assert ([], [], "closed") == (inner.calls, inner.questions, gateway.breaker.state)


@pytest.mark.parametrize(
    ("outcome", "well"),
    [
        (Succeeded("ch"), True), (Declined("card_declined"), True), (Invalid("amount"), True),
        (KeyMismatch("key"), True), (Absent(), True),
        (Found("ch", "pending", None, 1, "USD", "u1"), True),
        (Ambiguous("pending", ask_only=True), True), (Ambiguous("in_flight"), True),
        (NotSent("unreachable"), False), (NotSent("rate_limited", 5), False), (NotSent("auth"), False),
        (Ambiguous("timeout"), False), (Ambiguous("reset"), False), (Ambiguous("http_500"), False),
        (NotSent("no_free_connection"), None), (Ambiguous("internal_error"), None),
    ],
)  # fmt: skip
def test_declines_are_health_and_silence_is_failure(outcome: Outcome | Answer, well: bool | None) -> None:
    """Whoever answers works; what is our own doing says nothing."""
    assert well is went_well(outcome)
