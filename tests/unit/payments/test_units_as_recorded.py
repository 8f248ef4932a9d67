"""What each handler's unit sends, writes and counts, word for word as the release before the pipeline did.

`recorded_units.json` was made on commit ed750e1. A change of it is a change of what others read.
Times are seconds since the start of the scenario; each step has the records in their order, then the rows
that are other than before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.gateway_said import foreign, ours, say
from support.one_task import START_MS, OneTask
from support.orders import resolve
from support.subscribed import subscribe
from support.wishes import payment, refund

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
)
from streamsocial_billing.settings import PAYMENTS, RETRY

RECORDED = Path(__file__).with_name("recorded_units.json")
DAY_S = 24 * HOUR_S
Scenario = Callable[[OneTask, AskedGateway], Iterator[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    """Add it, under its name."""
    SCENARIOS[play.__name__] = play
    return play


# ---- charges


@scenario
def charges_end_in_each_class(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Called, each outcome; then each sent again."""
    outcomes: list[Outcome | Exception] = [
        Declined("lost_card", "ch_1"), Declined("insufficient_funds", "ch_2", soft=True), Invalid("bad"),
        KeyMismatch("idempotency_error"), RuntimeError("a bug"), Ambiguous("http_500", ask_only=True),
        NotSent("stopped"),
    ]  # fmt: skip
    lab.send(payment(lab, "p0", business_ref="sub:0"))
    yield
    for number, outcome in enumerate(outcomes):
        gateway.script = [outcome]
        lab.send(payment(lab, f"p{number + 1}", business_ref=f"sub:{number + 1}"))
        yield
    gateway.script = []
    lab.send(*(payment(lab, f"p{number}", business_ref=f"sub:{number}") for number in range(8)))
    yield


@scenario
def charges_that_call_nobody(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Refused by rule, by another fingerprint, by age; bad input."""
    lab.send(payment(lab, "p1", business_ref="sub:1"))
    yield
    lab.send(payment(lab, "p1", amount_minor=501), payment(lab, "p2", business_ref="sub:1"))
    yield
    lab.send(payment(lab, "p3", amount_minor=1), payment(lab, "p4", gateway="stripe"))
    yield
    lab.send(payment(lab, "p5", requested_at=lab.now_ms - 40 * DAY_S * 1000))
    yield
    lab.send(payment(lab, "p6"), at_ms=lab.now_ms - DAY_S * 1000)
    yield
    lab.append(PAYMENTS, b"u1", b"no json")
    lab.append(PAYMENTS, b"u2", payment(lab, "p7").to_bytes())
    lab.handle()
    yield


@scenario
def charges_that_were_reported_before(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """A gateway tells first, the event adopts it."""
    say(lab, ours("charge", "succeeded", "p1", "ch_1", event_id="e1"))
    yield
    say(lab, ours("charge", "pending", "p2", "ch_2", event_id="e2"))
    yield
    lab.send(payment(lab, "p1", business_ref="sub:1"), payment(lab, "p2"), payment(lab, "p1", currency="EUR"))
    yield


# ---- refunds


@scenario
def refunds_end_in_each_class(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Called with each outcome; what a retry brings frees or books what they hold."""
    lab.send(payment(lab, "c1"))
    yield
    lab.send(refund(lab, "r1", 100))
    yield
    outcomes: list[Outcome] = [
        Declined("lost_card", "re_1"), Invalid("bad"), KeyMismatch("idempotency_error"), NotSent("stopped"),
    ]  # fmt: skip
    for number, outcome in enumerate(outcomes):
        gateway.script = [outcome]
        lab.send(refund(lab, f"r{number + 2}", 50))
        yield
    gateway.script = []
    lab.wait(6)
    lab.look()
    yield
    lab.send(refund(lab, "r1", 100), refund(lab, "r8", 400), refund(lab, "r9", currency="EUR"))
    yield
    resolve(lab, "failed", payment_id="r4")
    yield


@scenario
def refunds_that_wait(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """For a charge that is unknown, for one that never comes, for one that a gateway knows of more."""
    gateway.script = [Ambiguous("http_500", ask_only=True)]
    lab.send(payment(lab, "c1", business_ref="sub:1"))
    yield
    lab.send(refund(lab, "r1"), refund(lab, "r2", 400), refund(lab, "r3", refund_of="c2"))
    yield
    say(lab, foreign("refund", "succeeded", "re_x", charge_ref="ch_9", amount_minor=50, event_id="e1"))
    yield
    gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1", "c1")]
    lab.wait(6)
    lab.look()
    yield
    gateway.found = []
    lab.look()
    yield
    lab.wait(601)
    lab.look()
    yield


@scenario
def refunds_that_were_reported_before(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Before their charge, pending, failed."""
    say(lab, ours("refund", "succeeded", "r1", "re_1", amount_minor=200, event_id="e1"))
    yield
    say(lab, ours("refund", "pending", "r2", "re_2", amount_minor=200, event_id="e2"))
    yield
    lab.send(refund(lab, "r1"), refund(lab, "r2"))
    yield
    lab.send(payment(lab, "c1"))
    yield


# ---- retries


@scenario
def retries_ask_or_repeat(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Repeated, asked for, absent twice, unsent for too long."""
    gateway.script = [Ambiguous("reset")] * 99
    lab.send(payment(lab, "p1"))
    yield
    lab.wait(6)
    lab.look()
    yield
    gateway.script = []
    lab.wait(31)
    lab.look()
    yield
    gateway.script = [NotSent("unreachable")] * 999
    lab.send(payment(lab, "p2"))
    yield
    lab.wait(DAY_S + 1)
    lab.look()
    yield
    gateway.script = []
    gateway.found = [Absent()]
    lab.wait(61)
    lab.look()
    yield
    lab.trigger("u1", "p2")
    yield
    lab.append(RETRY, b"u1", b"{}")
    lab.handle()
    yield


@scenario
def what_is_old_is_dropped(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Small after 35 days, gone after 13 months more."""
    lab.send(payment(lab, "p1", business_ref="sub:1"))
    yield
    lab.wait(36 * DAY_S)
    lab.trigger("u1", "p1")
    yield
    lab.wait(400 * DAY_S)
    lab.trigger("u1", "p1")
    yield


# ---- what gateways report, what people order


@scenario
def gateways_report(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Of open payments, of final ones, of what they made themselves."""
    lab.send(payment(lab, "c1", business_ref="sub:1"))
    yield
    gateway.script = [Ambiguous("http_500", ask_only=True)] * 2
    lab.send(payment(lab, "p2"))
    yield
    lab.send(payment(lab, "p3"))
    yield
    gateway.script = []
    settled = ours("charge", "succeeded", "p2", "ch_2", event_id="e1")
    say(lab, settled, settled, ours("charge", "succeeded", "p3", "ch_3", amount_minor=7, event_id="e2"))
    yield
    say(lab, foreign("refund", "succeeded", "re_x", amount_minor=50, event_id="e3"))
    yield
    say(lab, foreign("dispute", "succeeded", "dp_1", amount_minor=450, reason="fraud", event_id="e4"))
    yield
    say(lab, foreign("dispute", "declined", "dp_1", amount_minor=450, event_id="e5"))
    yield
    lab.send(refund(lab, "r1", 100))
    yield
    more = {"amount_minor": 100, "charge_id": "c1", "event_id": "e6"}
    say(lab, ours("refund", "declined", "r1", "re_scripted_1", **more))
    yield
    say(lab, ours("charge", "declined", "c1", "ch_scripted_1", event_id="e7"))
    yield


@scenario
def people_resolve(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Refused while the gateway has it otherwise, then done."""
    gateway.script = [KeyMismatch("idempotency_error")]
    lab.send(payment(lab, "p1"))
    yield
    gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1", "p1")]
    resolve(lab, "failed")
    yield
    resolve(lab, "succeeded", "ch_9")
    yield
    resolve(lab, "succeeded", "ch_9")
    yield


@scenario
def subscriptions_take_in_what_came_of_it(lab: OneTask, gateway: AskedGateway) -> Iterator[None]:
    """Charged at once; declined softly, then dunned."""
    subscribe(lab)
    yield
    subscribe(lab, payment_method="soft", subscription_id="43")
    yield
    lab.wait(DAY_S + 1)
    lab.look()
    yield


def played(name: str) -> list[Any]:
    """Each step of a scenario: what was sent, then the rows that changed; the counters are one of them."""
    gateway, steps, sent = AskedGateway(), [], 0
    before: dict[tuple[str, str | None], str | None] = {}
    with OneTask(gateway) as lab:
        for _ in SCENARIOS[name](lab, gateway):
            records = [one for each in lab.kafka.transactions for one in each.records]
            rows = {
                (table, _text(key)): _text(value)
                for table, disk in lab.disks.items() for key, value in disk.values.items()
            }  # fmt: skip
            changed = [[*key, rows.get(key)] for key in rows | before if rows.get(key) != before.get(key)]
            said = [[one.topic, _text(one.key), _text(one.value)] for one in records[sent:]]
            steps.append({"sent": said, "rows": sorted(changed)})
            before, sent = rows, len(records)
    return steps


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = re.sub(r'("command_id":")[^"]+', r"\1-", value.decode())
    return re.sub(r"\b1[78]\d{11}\b", lambda found: f'"{(int(found[0]) - START_MS + 400) // 1000} s"', text)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_unit_is_what_was_recorded(name: str) -> None:
    """Records, rows, counters, and the order of what is sent."""
    assert orjson.loads(RECORDED.read_bytes())[name] == played(name)


if __name__ == "__main__":
    RECORDED.write_bytes(orjson.dumps({name: played(name) for name in SCENARIOS}, option=orjson.OPT_INDENT_2))
