"""What the gatekeeper knows of accounts and open payments; what /metrics says of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support import wishes
from support.asked_gateway import AskedGateway
from support.one_task import OneTask
from support.orders import answers, order, switch
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import NotSent
from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.operations.commands import Command, key_of_every_task
from streamsocial_billing.operations.kill_switch import STOP
from streamsocial_billing.payments.gateway_availability import ALL_STATES, NOT_CONFIGURED, Gatekeeper
from streamsocial_billing.payments.open_payments import OpenPaymentCounts
from streamsocial_billing.settings import COMMANDS, PAYMENTS, Settings
from streamsocial_billing.web.payment_metrics import PaymentMetrics

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docs/alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
# the live audit and reconciliation have tests of their own
NAME = re.compile(r"\bbilling_(?!audit_|reconciliation_)\w+")
OF_OTHERS = {
    "billing_payment_requests_total", "billing_payments_unchecked_total", "billing_webhooks_total",
    "billing_gateway_told_total",
}  # fmt: skip
"""Metrics of the receivers and of what gateways tell, which have tests of their own."""


@pytest.fixture
def lab(gateway: AskedGateway) -> Iterator[OneTask]:
    with OneTask(gateway, ScriptedGateway(name="paypal")) as lab:
        yield lab


def payment(lab: OneTask, payment_id: str = "p1", **fields: Any) -> PaymentEvent:
    """A payment of the user u1, made now."""
    return wishes.payment(lab, payment_id, **{"payment_method": "ambiguous"} | fields)


def samples(
    gatekeeper: Gatekeeper, dead_letter_counts: Any = None
) -> dict[tuple[str, tuple[str, ...]], float]:
    """What a scrape has, by name and the values of its labels."""
    registry = CollectorRegistry()
    registry.register(PaymentMetrics(gatekeeper, Counter(dead_letter_counts or {})))
    text = generate_latest(registry).decode()
    return {
        (one.name.removeprefix("billing_"), tuple(one.labels[name] for name in sorted(one.labels))): one.value
        for family in text_string_to_metric_families(text) for one in family.samples
        if not one.name.endswith("_created")
    }  # fmt: skip


# ---- how many payments are under way at once


@pytest.mark.parametrize(("gateways", "most"), [(1, 4), (2, 8), (3, 9)])
def test_no_more_payments_are_begun_than_gateways_may_be_called_for(gateways: int, most: int) -> None:
    """Half of the handlers for each gateway: one more would only wait for a call to end."""
    several = (InstantGateway(1), ScriptedGateway(name="paypal"), ScriptedGateway(name="stripe"))
    settings = Settings(partitions=1, max_in_flight=9)
    with OneTask(*several[:gateways], settings=settings) as lab:
        for number in range(10):
            one = payment(lab, f"p{number}", user_id=f"u{number}", payment_method="pm_card_visa")
            lab.append(PAYMENTS, one.user_id.encode(), one.to_bytes())
        lab.deliver()
        lab.loop.settle(0.1)
        assert most == lab.layer.state.bounds.running
        lab.handle()
        assert ["succeeded"] * 10 == [one["status"] for one in lab.results()]


def test_an_order_is_carried_out_while_all_payments_wait_for_their_gateway() -> None:
    """Who stops a gateway that hangs is heard: handlers are left for everything but payments."""
    with OneTask(InstantGateway(3), settings=Settings(partitions=1, max_in_flight=2)) as lab:
        for number in range(3):
            one = payment(lab, f"p{number}", user_id=f"u{number}", payment_method="pm_card_visa")
            lab.append(PAYMENTS, one.user_id.encode(), one.to_bytes())
        command = Command(STOP, "ann", "it hangs", lab.now_ms, details={"gateway": "simulated"})
        lab.append(COMMANDS, key_of_every_task(0), command.to_bytes())
        lab.deliver()
        lab.loop.settle(0.1)
        assert (["done"], []) == ([one["outcome"] for one in answers(lab)], lab.results())


# ---- why a gateway is not called, and since when


def test_a_breaker_that_is_open_says_since_when_and_why(lab: OneTask) -> None:
    """When it opened, the reason code of the last call that failed; nothing of it while it is closed."""
    assert [(None, "")] * 2 == [(one.since_ms, one.reason) for one in lab.gatekeeper.status()]
    for number in range(8):
        lab.send(payment(lab, f"p{number}", payment_method="not_sent"))
    opened_ms = lab.now_ms
    lab.wait(1)
    _, one = lab.gatekeeper.status()
    assert ("simulated", "open", "", "unreachable") == (one.name, one.state, one.actor, one.reason)
    assert one.since_ms is not None
    assert opened_ms - 60_000 <= one.since_ms <= opened_ms


def test_a_gateway_that_a_person_stopped_says_who_when_and_why(lab: OneTask) -> None:
    """As it stands in the order that stopped it; one that only repeats it changes nothing of that."""
    at = lab.now_ms
    switch(lab, stop=True)
    lab.wait(60)
    order(lab, Command(STOP, "bob", "me too", lab.now_ms, details={"gateway": "simulated"}))
    lab.gatekeeper.look()
    _, one = lab.gatekeeper.status()
    assert ("stopped", at, "ann", "maintenance") == (one.state, one.since_ms, one.actor, one.reason)


# ---- not set up


def test_what_is_open_at_a_gateway_that_is_not_set_up_waits_with_its_whole_schedule(lab: OneTask) -> None:
    """Weeks later it is still open, no try used up, nothing parked; set up again, it is asked."""
    lab.send(payment(lab))
    before = lab.entry("u1", "p1")
    taken_away = lab.gatekeeper.resilient.pop("simulated")
    for _ in range(20):
        lab.wait(2 * 86_400)
        assert 0 == lab.look()
    assert before == lab.entry("u1", "p1")
    lab.gatekeeper.resilient["simulated"] = taken_away
    assert 1 == lab.look()
    assert before != lab.entry("u1", "p1")


# ---- accounts


def test_a_gateway_whose_account_has_changed_is_stopped(
    lab: OneTask, gateway: AskedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Open payments belong to another account: no new one is charged, one line in the log, a state."""
    lab.send(payment(lab))
    lab.look()
    gateway.account = "acct_new"
    lab.wait(6)
    lab.look()  # counts, then compares with the next look
    calls = len(gateway.calls)
    lab.gatekeeper.look()
    (result,) = lab.send(payment(lab, "p2", payment_method="pm_card_visa"))

    assert ("unknown", "gateway_unavailable") == (result["status"], result["reason"])
    assert (calls, 0) == (len(gateway.calls), lab.gatekeeper.permits("simulated"))
    assert math.inf == lab.gatekeeper.permits("paypal")
    found = samples(lab.gatekeeper)
    assert (1, 1) == (
        found["gateway_account_changed", ("simulated",)],
        found["gateway_state", ("simulated", "account_changed")],
    )
    assert 1 == caplog.text.count("gateway simulated is stopped: its account is acct_new, open payments")


def test_a_person_may_go_on_with_the_new_account(lab: OneTask, gateway: AskedGateway) -> None:
    """`gateways start --account`: new payments are charged there, the old ones wait for a person."""
    lab.send(payment(lab))
    gateway.account = "acct_new"
    lab.look()
    lab.gatekeeper.look()
    assert 0 == lab.gatekeeper.permits("simulated")
    switch(lab, stop=False, account="acct_wrong")
    lab.gatekeeper.look()
    assert 0 == lab.gatekeeper.permits("simulated"), "not the account that is configured"
    switch(lab, stop=False, account="acct_new")
    lab.gatekeeper.look()
    (result,) = lab.send(payment(lab, "p2", payment_method="pm_card_visa"))

    assert ("succeeded", math.inf) == (result["status"], lab.gatekeeper.permits("simulated"))
    assert 1 == samples(lab.gatekeeper)["gateway_account_changed", ("simulated",)]
    lab.wait(6)
    lab.look()
    assert "gateway_account_changed" == lab.entry("u1", "p1")["reason"]


def test_a_gateway_that_does_not_know_its_account_yet_is_not_taken_for_another(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Stripe down at the start, say: open payments wait, then go on; new ones take the account."""
    lab.send(payment(lab))
    gateway.account = ""
    gateway.script = [NotSent("account_unknown")] * 99
    lab.send(payment(lab, "p2"))
    lab.wait(6)
    lab.look()
    assert ["gateway_unavailable"] * 2 == [lab.entry("u1", name)["reason"] for name in ("p1", "p2")]
    assert (0, "") == (lab.entry("u1", "p1")["step"], lab.entry("u1", "p2")["gateway_account"])

    gateway.account, gateway.script = "acct_scripted", []
    lab.wait(40)
    lab.look()
    assert "acct_scripted" == lab.entry("u1", "p2")["gateway_account"]
    assert [] == [one for one in lab.gatekeeper.status() if one.foreign]


# ---- counting


def test_open_payments_are_counted_with_their_age_and_money(lab: OneTask) -> None:
    """By gateway and status, from the walk of the timer; settled ones leave the count."""
    first_ms = lab.now_ms
    lab.send(payment(lab, "p1", amount_minor=200), payment(lab, "p2", currency="EUR"))
    lab.wait(100)
    lab.send(payment(lab, "p3", payment_method="mismatch"), payment(lab, "p4", payment_method="pm_card_visa"))
    lab.gatekeeper.open_counts.keep_only([])
    lab.look()
    found = samples(lab.gatekeeper)

    assert (2, 1, 0) == tuple(
        found["open_payments", group]
        for group in (("simulated", "unknown"), ("simulated", "parked"), ("paypal", "parked"))
    )
    assert first_ms / 1000 == found["oldest_open_payment_timestamp_seconds", ("simulated", "unknown")]
    assert {("USD", "unknown"): 200, ("EUR", "unknown"): 500, ("USD", "parked"): 500} == {
        labels[::2]: value for (name, labels), value in found.items() if name == "open_minor"
    }


def test_a_task_that_has_left_is_counted_no_more() -> None:
    """Nor is half of a walk; rows of earlier releases are."""
    open_counts = OpenPaymentCounts()
    open_counts.saw(0, [{"next_try_at": 7}], whole=True)
    open_counts.saw(1, [{"next_try_at": 7, "status": "parked", "gateway": "paypal", "since": 3}], whole=False)
    assert {("", "unknown"): 1} == dict(open_counts.total().counts)
    open_counts.saw(1, [{"next_try_at": 7, "status": "parked", "gateway": "paypal", "since": 2}], whole=True)
    assert (2, 2) == (
        open_counts.total().counts["paypal", "parked"], open_counts.total().oldest_ms["paypal", "parked"],
    )  # fmt: skip
    open_counts.keep_only([0])
    assert {("", "unknown"): 1} == dict(open_counts.total().counts)


def test_dead_letters_are_counted_by_reason(lab: OneTask) -> None:
    """Those of this process."""
    lab.append("payments", b"u1", b"no json")
    lab.handle()
    dead_letter_counts = {"not_json": 1}
    assert 1 == samples(lab.gatekeeper, dead_letter_counts)["dead_letters_total", ("not_json",)]


def test_every_gateway_is_in_one_state(lab: OneTask) -> None:
    """A stop stands before the breaker."""
    switch(lab, stop=True)
    lab.look()
    found = samples(lab.gatekeeper)
    for name, state in (("simulated", "stopped"), ("paypal", "closed")):
        assert {one: float(one == state) for one in ALL_STATES} == {
            one: found["gateway_state", (name, one)] for one in ALL_STATES
        }


def test_a_gateway_that_open_payments_wait_for_is_shown_though_it_is_not_set_up(
    lab: OneTask, caplog: pytest.LogCaptureFixture
) -> None:
    """In /ready, in the metrics that the alert reads, and in one line of the log; until they are gone."""
    row = {"next_try_at": 7, "status": "unknown", "gateway": "stripe", "since": 3}
    for _ in range(2):
        lab.gatekeeper.open_counts.saw(0, [row, {"next_try_at": 7}], whole=True)
        lab.gatekeeper.look()
    states = {one.name: one.state for one in lab.gatekeeper.status()}
    assert {"paypal": "closed", "simulated": "closed", "stripe": NOT_CONFIGURED} == states
    assert 1 == samples(lab.gatekeeper)["gateway_state", ("stripe", NOT_CONFIGURED)]
    (rule,) = (one for one in RULES if one.get("alert") == "OpenPaymentsWithoutGateway")
    assert f'billing_gateway_state{{state="{NOT_CONFIGURED}"}}' in rule["expr"]
    assert 1 == caplog.text.count("open payments wait: gateway stripe is not set up here")
    lab.gatekeeper.open_counts.saw(0, [], whole=True)
    lab.gatekeeper.look()
    assert "stripe" not in {one.name for one in lab.gatekeeper.status()}


# ---- what is written of it


def test_the_page_explains_every_metric_of_payments(lab: OneTask) -> None:
    """What a scrape has stands in docs/operations.md; what stands there exists."""
    lab.send(payment(lab))
    lab.look()
    there = {f"billing_{name}" for name, _ in samples(lab.gatekeeper, {"not_json": 1})}
    assert there == set(NAME.findall(PAGE)) - OF_OTHERS
    assert set() == set(ALL_STATES) - set(re.findall(r"`(\w+)`", PAGE))


def test_every_alert_of_payments_asks_for_series_that_exist(lab: OneTask) -> None:
    """Names, labels, states."""
    lab.send(payment(lab))
    lab.look()
    there: set[str] = set()
    registry = CollectorRegistry()
    registry.register(PaymentMetrics(lab.gatekeeper, Counter({"not_json": 1})))
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for one in family.samples:
            there.add(one.name)
            labels.setdefault(one.name, set()).update(one.labels)
    ours = [rule for rule in RULES if set(NAME.findall(rule["expr"])) - OF_OTHERS]
    assert len(ours) >= 6
    for rule in ours:
        names = set(NAME.findall(rule["expr"]))
        assert set() == names - there, rule["alert"]
        known = set().union(*(labels[name] for name in names)) | {"job", "instance"}
        used = set(re.findall(r"(\w+)=~?\"", rule["expr"]))
        for group in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            used |= set(re.split(r",\s*", group))
        assert set() == used - known, rule["alert"]
        for states in re.findall(r"state=~?\"([^\"]+)\"", rule["expr"]):
            assert set() == set(states.split("|")) - set(ALL_STATES), rule["alert"]
