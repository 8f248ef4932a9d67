"""Repeating a charge until it is settled, in scripted time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from support.scripted_gateway import ScriptedGateway

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
from streamsocial_billing.gateways.instant import InstantGateway

REQUEST = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "pm_card_visa")


class Time:
    """Seconds that pass only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Play:
    """One scripted charge: what came out, what was called, how time went."""

    def __init__(self, script: str, deadline_s: float = 8.0) -> None:
        self.request = replace(REQUEST, payment_method=script)
        self.deadline_s = deadline_s
        self.pauses = Time()
        self.gateway = ScriptedGateway(sleep=self._within_the_call)

    async def _within_the_call(self, seconds: float) -> None:
        self.pauses.now_s += seconds

    async def run(self) -> tuple[Outcome, int, int]:
        return await call_until(self.gateway.charge,
            self.request,
            deadline_s=self.deadline_s,
            clock=self.pauses.clock,
            sleep=self.pauses.sleep,
        )


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("succeeded", Succeeded("ch_scripted_1")),
        ("declined", Declined("card_declined", "ch_scripted_declined")),
        ("invalid", Invalid("parameter_invalid")),
        ("mismatch", KeyMismatch("idempotency_error")),
    ],
)
async def test_a_settled_outcome_is_returned_after_one_call(script: str, outcome: Outcome) -> None:
    """What cannot change by a repeat is not repeated."""
    play = Play(script)
    assert (outcome, 1, 0) == await play.run()
    assert [] == play.pauses.slept


async def test_a_lost_reply_is_repeated_with_the_same_key_and_finds_its_charge() -> None:
    """A charge whose reply is lost is found by the repeat, never made a second time."""
    play = Play("lost, lost, succeeded")
    assert (Succeeded("ch_scripted_1"), 3, 0) == await play.run()
    assert ["ss1_k"] * 3 == [key for key, _ in play.gateway.calls]
    assert {"ss1_k": "ch_scripted_1"} == play.gateway.charges


async def test_pauses_grow_from_50_ms_to_a_second_until_the_deadline() -> None:
    """Pauses double up to one second, and no pause leads past the deadline."""
    play = Play("not_sent", deadline_s=4.0)
    outcome, attempts, _ = await play.run()
    assert [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0] == play.pauses.slept
    assert (NotSent("unreachable"), 8) == (outcome, attempts)
    assert play.pauses.now_s < 104.0


async def test_retry_after_is_honoured() -> None:
    """The gateway's own wish is waited for where it is longer than our pause."""
    play = Play("not_sent@2, succeeded")
    assert (Succeeded("ch_scripted_1"), 2, 0) == await play.run()
    assert [2.0] == play.pauses.slept


async def test_a_retry_after_beyond_the_deadline_ends_the_tries_at_once() -> None:
    """Nobody waits for a try that the deadline forbids."""
    play = Play("not_sent@9, succeeded")
    assert (NotSent("rate_limited", 9.0), 1, 0) == await play.run()
    assert 100.0 == play.pauses.now_s


async def test_a_hung_call_leaves_time_for_a_repeat() -> None:
    """One try may take half of what is left, so that a hung connection is not the end."""
    play = Play("lost+60, succeeded")
    assert (Succeeded("ch_scripted_1"), 2, 4000) == await play.run()
    assert [4.0, 1.975] == [round(timeout_s, 6) for _, timeout_s in play.gateway.calls]


async def test_hung_calls_end_at_the_deadline() -> None:
    """The deadline covers all tries and waits, whatever the gateway does."""
    play = Play("lost+60")
    outcome, attempts, gateway_ms = await play.run()
    assert Ambiguous("timeout") == outcome
    assert play.pauses.now_s <= 108.0
    assert round((play.pauses.now_s - 100.0 - sum(play.pauses.slept)) * 1000) == gateway_ms
    assert 4 == attempts


@pytest.mark.parametrize("later", ["not_sent", "invalid"])
async def test_doubt_is_not_outweighed_by_a_later_harmless_call(later: str) -> None:
    """After one ambiguous call, "unsent" and "invalid" of a later one do not say that nothing was charged."""
    play = Play(f"lost, {later}", deadline_s=1.0)
    outcome, attempts, _ = await play.run()
    assert Ambiguous("reset") == outcome
    assert attempts >= 2


async def test_a_decline_settles_an_earlier_doubt() -> None:
    """A decline is the gateway's word on the key itself."""
    play = Play("ambiguous, declined")
    assert (Declined("card_declined", "ch_scripted_declined"), 2, 0) == await play.run()


@pytest.mark.parametrize("deadline_s", [-1.0, 0.0, 0.049])
async def test_without_time_for_a_call_nothing_is_sent(deadline_s: float) -> None:
    """No call is begun that could only end in doubt."""
    play = Play("succeeded", deadline_s)
    assert (NotSent("deadline"), 0, 0) == await play.run()
    assert [] == play.gateway.calls


async def test_the_instant_gateway_gives_equal_references_for_equal_keys() -> None:
    """A repeat at the instant gateway finds the same charge."""
    gateway = InstantGateway()
    first = await gateway.charge(REQUEST, timeout_s=1)
    assert first == await gateway.charge(REQUEST, timeout_s=1)
    assert Ambiguous("timeout") == await InstantGateway(0.05).charge(REQUEST, timeout_s=0.01)
