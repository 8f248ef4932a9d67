"""Gateways that people stop, in virtual time: nobody is called, nothing is lost, nothing fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask
from support.orders import answers, order, switch
from support.scripted_gateway import ScriptedGateway
from support.wishes import payment

from streamsocial_billing.domain.gateway_calls import Ambiguous, NotSent, Outcome
from streamsocial_billing.domain.times import utc
from streamsocial_billing.operations.commands import Command, key_of_every_task
from streamsocial_billing.operations.kill_switch import STOP, newest_of
from streamsocial_billing.settings import COMMANDS, PAYMENTS
from streamsocial_billing.timers.due_payments import TRIGGERS_PER_LOOK
from tables.gateway_switches import GatewaySwitch, first_order, repeated_order, switch_key

DAY_S = 24 * HOUR_S


@pytest.fixture
def lab(gateway: AskedGateway) -> Iterator[OneTask]:
    with OneTask(gateway, ScriptedGateway(name="paypal")) as lab:
        yield lab


def settled(lab: OneTask) -> list[tuple[str, str | None]]:
    """The settling results so far."""
    return [(one["status"], one["reason"]) for one in lab.results() if one["resolves"]]


def test_a_stopped_gateway_is_not_called_and_its_payments_wait(lab: OneTask, gateway: AskedGateway) -> None:
    """`unknown` / `gateway_unavailable` with no call; another gateway goes on; started, it is charged."""
    assert "done" == switch(lab, stop=True)["outcome"]
    waits, goes_on = lab.send(payment(lab), payment(lab, "p2", gateway="paypal"))
    assert ("unknown", "gateway_unavailable", 0) == (waits["status"], waits["reason"], waits["attempt"])
    assert "succeeded" == goes_on["status"]
    for _ in range(3):
        lab.wait(6)
        assert 0 == lab.look(), "nobody is triggered towards it"
    assert [] == gateway.calls

    assert "done" == switch(lab, stop=False)["outcome"]
    assert 1 == lab.look(), "it has been due for long"
    assert ([("succeeded", None)], 1) == (settled(lab), len(gateway.calls))


def test_a_stop_holds_before_the_first_call_after_a_crash(lab: OneTask, gateway: AskedGateway) -> None:
    """The switch is in the task's table, so its next owner knows it with its first event, without a timer."""
    switch(lab, stop=True)
    event = payment(lab)
    lab.append(PAYMENTS, b"u1", event.to_bytes())
    lab.crash()
    lab.handle()
    assert (["unknown"], []) == ([one["status"] for one in lab.results()], gateway.calls)
    lab.crash()
    lab.wait(6)
    assert 0 == lab.look()
    switch(lab, stop=False)
    assert (1, [("succeeded", None)]) == (lab.look(), settled(lab))


def test_a_call_under_way_ends_as_it_likes_and_is_not_repeated_after_the_stop(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Its first try is lost while the stop commits; no second one follows, the doubt stays."""
    gateway.script = [Ambiguous("reset")] * 9
    lab.append(PAYMENTS, b"u1", payment(lab).to_bytes())
    stop = Command(STOP, "ann", "now", lab.now_ms, details={"gateway": "simulated"})
    lab.append(COMMANDS, key_of_every_task(0), stop.to_bytes())
    lab.handle()
    (result,) = lab.results()
    assert ("unknown", "outcome_unknown", 1) == (result["status"], result["reason"], len(gateway.calls))
    gateway.script = []
    switch(lab, stop=False)
    lab.wait(6)
    assert (1, [("succeeded", None)]) == (lab.look(), settled(lab))


def test_nothing_fails_by_a_stop_however_long(lab: OneTask, gateway: AskedGateway) -> None:
    """Longer than BILLING_GIVE_UP_AFTER_S and the key's window: asked for, absent twice, then charged."""
    switch(lab, stop=True)
    lab.send(payment(lab))
    for _ in range(30):
        lab.wait(DAY_S)
        lab.trigger("u1", "p1")  # even if somebody does
    assert ([], [], "unknown") == (gateway.calls, gateway.questions, lab.entry("u1", "p1")["status"])
    switch(lab, stop=False)
    for _ in range(3):
        lab.wait(61)
        lab.look()
    assert (2, 1, [("succeeded", None)]) == (len(gateway.questions), len(gateway.calls), settled(lab))


def test_of_two_orders_the_later_stands_in_whatever_order_they_arrive(lab: OneTask) -> None:
    """Two people at once: every task must come to the same end; who came too late is told."""
    at = lab.now_ms
    switch(lab, stop=False, at=at)
    late = switch(lab, stop=True, at=at - 1)
    assert ("refused", f"ann gave a later order, at {utc(at)}: it applies") == (late["outcome"], late["why"])
    assert not lab.row("gateway_switches", switch_key(0, "simulated"))["stopped"]
    assert "done" == switch(lab, stop=True, at=at + 1)["outcome"]
    assert lab.row("gateway_switches", switch_key(0, "simulated"))["stopped"]


def test_a_second_stop_keeps_who_stopped_first_when_and_why(lab: OneTask) -> None:
    """It is answered with the first; the row has both, the newest repeat beside; a start ends it."""
    at = lab.now_ms
    switch(lab, stop=True)
    for number, actor in enumerate(("bob", "eve"), start=1):
        repeat = Command(STOP, actor, "me too", at + number, details={"gateway": "simulated"})
        answer = order(lab, repeat)
        expected = f"simulated was already stopped, at {utc(at)} by ann: maintenance"
        assert ("done", expected) == (answer["outcome"], answer["why"])
    row = lab.row("gateway_switches", switch_key(0, "simulated"))
    assert ({"actor": "ann", "reason": "maintenance", "at": at}, "eve") == (row["first"], row["actor"])
    assert {"actor": "eve", "reason": "me too", "at": at + 2} == repeated_order(row)
    lab.gatekeeper.look()
    assert "stopped" == lab.gatekeeper.status()[1].state

    switch(lab, stop=False, at=at + 3)
    row = lab.row("gateway_switches", switch_key(0, "simulated"))
    assert ("ann", at + 3, None) == (row["actor"], first_order(row)["at"], repeated_order(row))


def test_a_repeat_on_a_row_of_an_older_release_keeps_that_row_s_order_as_the_first(lab: OneTask) -> None:
    """Such a row has no `first`: who, when, why are its own."""
    at = lab.now_ms
    switch(lab, stop=True)
    key = switch_key(0, "simulated")
    old = lab.row("gateway_switches", key)
    assert "first" not in old
    assert (at, None) == (first_order(old)["at"], repeated_order(old))
    switch(lab, stop=True, at=at + 1)
    assert at == lab.row("gateway_switches", key)["first"]["at"]


def test_the_tasks_agree_since_when_a_gateway_is_stopped() -> None:
    """A task that knows the newest order stands for all; of those the one that knows the first."""
    old: GatewaySwitch = {
        "gateway": "stripe", "stopped": True, "account": None, "actor": "ann", "reason": "x", "at": 1,
        "command_id": "a",
    }  # fmt: skip
    late: GatewaySwitch = {**old, "actor": "bob", "at": 5, "command_id": "b"}
    both: GatewaySwitch = {**late, "first": {"actor": "ann", "reason": "x", "at": 1}}
    assert both == newest_of([old, late, both])


@pytest.mark.parametrize(
    ("details", "ahead_ms", "key", "reason"),
    [
        ({"gateway": "bank"}, 0, key_of_every_task(0), "unknown_gateway"),
        ({}, 0, key_of_every_task(0), "unknown_gateway"),
        ({"gateway": "paypal", "account": 7}, 0, key_of_every_task(0), "unknown_gateway"),
        ({"gateway": "paypal"}, 0, b"every:1", "key_mismatch"),
        ({"gateway": "paypal"}, 0, b"u1", "key_mismatch"),
        ({"gateway": "paypal"}, 300_001, key_of_every_task(0), "bad_time"),
    ],
)
def test_a_bad_order_is_refused(
    lab: OneTask, details: dict[str, Any], ahead_ms: int, key: bytes, reason: str
) -> None:
    """Nothing is stopped by it; its answer says why, no dead letter is needed."""
    bad = Command(STOP, "ann", "why", lab.now_ms + ahead_ms, details=details)
    lab.append(COMMANDS, key, bad.to_bytes())
    lab.handle()
    assert [("refused", reason)] == [(one["outcome"], one["code"]) for one in answers(lab)]
    assert ([], {}) == (lab.dead_letters(), lab.disks["gateway_switches"].values)


def test_an_order_about_a_gateway_that_is_not_configured_is_kept(lab: OneTask) -> None:
    """Configured later, it is stopped from the start."""
    switch(lab, stop=True, gateway="stripe")
    lab.gatekeeper.look()
    assert [("paypal", "closed"), ("simulated", "closed"), ("stripe", "stopped")] == [
        (one.name, one.state) for one in lab.gatekeeper.status()
    ]


def test_an_answer_says_who_ordered_what_and_what_became_of_it(lab: OneTask) -> None:
    """In the transaction of the deed."""
    command = Command(STOP, "ann", "why", lab.now_ms, details={"gateway": "paypal"})
    assert {
        "command_id": command.command_id, "command": "gateways stop", "actor": "ann", "user_id": None,
        "partition": 0, "outcome": "done", "why": "paypal is stopped", "at": command.at,
        "code": None, "payment_id": None,
    } == order(lab, command) | {"at": command.at}  # fmt: skip


# ---- the breaker, through the whole application


UNSENT: list[Outcome | Exception] = [NotSent("unreachable")] * 9_999


def test_after_a_probe_that_failed_only_triggers_probe(lab: OneTask, gateway: AskedGateway) -> None:
    """A probe that hangs holds up the commits behind it: of triggers, not of payments, which only wait."""
    gateway.script = UNSENT.copy()
    lab.send(*(payment(lab, f"p{number}", user_id=f"u{number}") for number in range(20)))
    lab.wait(1)
    calls = len(gateway.calls)
    lab.send(payment(lab, "a"))
    assert calls + 1 == len(gateway.calls), "the first probe is anybody's: a blip is over at once"
    lab.wait(100)
    gateway.script = []
    (result,) = lab.send(payment(lab, "b"))
    assert ("unknown", calls + 1) == (result["status"], len(gateway.calls))
    lab.wait(5)
    assert (1, 21) == (lab.look(), lab.look())
    assert "closed" == lab.gatekeeper.resilient["simulated"].breaker.state


def test_a_gateway_that_is_down_is_left_alone_and_its_backlog_drains_when_it_is_back(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Some payments find it out; the others wait without a call; one probe a pause; then all are charged."""
    gateway.script = UNSENT.copy()
    count = TRIGGERS_PER_LOOK // 5
    lab.send(*(payment(lab, f"p{number}", user_id=f"u{number}") for number in range(count)))
    assert "open" == lab.gatekeeper.resilient["simulated"].breaker.state
    found_out = len(gateway.calls)
    assert found_out < count

    probes = []
    for _ in range(60):  # two minutes
        lab.wait(2)
        probes.append(lab.look())
    assert {0, 1} == set(probes)
    assert 4 <= sum(probes) == len(gateway.calls) - found_out <= 10

    gateway.script = []
    before = len(gateway.calls)
    for _ in range(20):
        lab.wait(2)
        lab.look()
    assert ([("succeeded", None)] * count, count) == (settled(lab), len(gateway.calls) - before)
    assert [] == [key for key in lab.disks["open_payments"].values]
