"""Orders of subscriptions through the whole application on one task."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask
from support.subscribed import (
    DAY_S,
    OURS,
    attempts,
    days,
    found,
    letters,
    pay,
    refs,
    sub,
    subscribe,
    unknown,
)

from streamsocial_billing.commands import Command
from streamsocial_billing.events import PaymentEvent
from streamsocial_billing.periods import start_of
from streamsocial_billing.settings import COMMANDS, PAYMENTS


@pytest.fixture
def gateway() -> AskedGateway:
    return AskedGateway()


@pytest.fixture
def lab(gateway: AskedGateway) -> Iterator[OneTask]:
    with OneTask(gateway) as lab:
        yield lab


def test_the_same_order_twice_is_one_subscription(lab: OneTask) -> None:
    """Equal terms: nothing. Other terms under its id: a dead letter, the subscription stays."""
    subscribe(lab)
    row = sub(lab)
    lab.wait(60)
    subscribe(lab)
    assert ([], row, 1) == (letters(lab), sub(lab), len(lab.results()))
    subscribe(lab, amount_minor=1)
    assert (["subscription_differs"], row) == (letters(lab), sub(lab))


def test_a_cancelled_subscription_does_not_come_back_by_its_old_order(lab: OneTask) -> None:
    """Its payments' ids were used: a new one has a new id."""
    subscribe(lab)
    lab.command("unsubscribe", subscription_id="42", at_once=True)
    subscribe(lab)
    days(lab, 40)
    assert ("cancelled", 1) == (sub(lab)["state"], len(lab.sent(PAYMENTS)))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_cancelled_subscription_is_not_renewed(lab: OneTask, at_once: bool) -> None:
    """At once: it ends now. Else it ends where what was paid for ends. Twice is once."""
    subscribe(lab)
    lab.wait(DAY_S)
    ordered_at = lab.now_ms
    for _ in range(2):
        lab.command("unsubscribe", subscription_id="42", at_once=at_once)
        lab.wait(5)
    days(lab, 60)
    row = sub(lab)
    assert ("cancelled", 1, []) == (row["state"], len(lab.sent(PAYMENTS)), letters(lab))
    expected = ordered_at if at_once else start_of(row["anchor"], "month", 1)
    assert expected == row["ends_at"]


def test_a_cancelled_subscription_is_not_dunned(lab: OneTask) -> None:
    """Past due: nothing was paid for, so it ends now."""
    subscribe(lab, "soft")
    lab.wait(HOUR_S)
    lab.command("unsubscribe", subscription_id="42")
    row = sub(lab)
    days(lab, 20)
    assert ([0.0], "cancelled", row["changed_at"]) == (attempts(lab), row["state"], row["ends_at"])


@pytest.mark.parametrize("at_once", [True, False])
def test_a_payment_under_way_when_it_was_cancelled_is_taken_in(
    lab: OneTask, gateway: AskedGateway, at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It succeeds: what it paid for lasts; cancelled at once, an alarm names what to refund."""
    unknown(gateway, found("succeeded", OURS))
    subscribe(lab)
    ordered_at = lab.now_ms
    lab.command("unsubscribe", subscription_id="42", at_once=at_once)
    lab.wait(10)
    lab.look()
    row = sub(lab)
    assert ("cancelled", None, None) == (row["state"], row["pending"], row["next_at"])
    assert (ordered_at if at_once else start_of(row["anchor"], "month", 1)) == row["ends_at"]
    assert at_once == ("was charged after it was cancelled" in caplog.text)


def test_a_changed_plan_counts_from_the_next_period_on(lab: OneTask) -> None:
    """An upgrade: tries of the period under way still ask the old price."""
    subscribe(lab, "soft")
    lab.command("change-plan", subscription_id="42", amount_minor=1999)
    lab.wait(DAY_S)
    lab.look()
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_card_visa")
    days(lab, 31)
    amounts = [orjson.loads(one.value)["amount_minor"] for one in lab.sent(PAYMENTS)]
    assert [999, 999, 999, 1999] == amounts


def test_an_upgrade_in_between_is_a_payment_of_its_own(lab: OneTask) -> None:
    """A one-off with the product `upgrade` touches no period."""
    subscribe(lab)
    row = sub(lab)
    lab.send(PaymentEvent(
        "up-1", "u1", "charge", "upgrade", 500, "USD", "pm_card_visa", "simulated", "upgrade:42:2025-12",
        None, lab.now_ms,
    ))  # fmt: skip
    assert (row, ["subscription", "upgrade"]) == (sub(lab), [one["product"] for one in lab.results()])


def test_a_new_payment_method_begins_dunning_anew(lab: OneTask) -> None:
    """Tried at once, then on all of the days again."""
    subscribe(lab, "soft")
    days(lab, 4)
    lab.command("update-payment-method", subscription_id="42", payment_method="soft")
    days(lab, 20)
    assert [0.0, 1.0, 3.0, 4.0, 5.0, 7.0, 9.0, 11.0] == attempts(lab)


@pytest.mark.parametrize("way", ["soft", "declined"])
def test_a_new_payment_method_that_came_while_the_old_one_was_tried_is_tried_at_once(
    lab: OneTask, gateway: AskedGateway, way: str
) -> None:
    """After the decline, however hard: that was about the old one."""
    unknown(gateway, found("declined", OURS, soft=way == "soft"))
    subscribe(lab)
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_other")
    assert 1 == len(lab.sent(PAYMENTS))
    for _ in range(2):
        lab.wait(10)
        lab.look()
    methods = [orjson.loads(one.value)["payment_method"] for one in lab.sent(PAYMENTS)]
    assert (["pm_card_visa", "pm_other"], 1) == (methods, sub(lab)["period"])


def test_an_unpaid_subscription_goes_on_with_the_period_it_is_in(lab: OneTask) -> None:
    """The months in which it was unpaid were not served: they are not charged."""
    subscribe(lab, "declined")
    days(lab, 100)
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_card_visa")
    assert ["sub:42:2026-03"] == refs(lab)
    days(lab, 31)
    assert ["sub:42:2026-03", "sub:42:2026-04"] == refs(lab)


def test_another_payment_for_an_unpaid_period_brings_it_back(lab: OneTask) -> None:
    """The next period charged is the first that begins after it."""
    subscribe(lab, "declined")
    days(lab, 100)
    pay(lab, "web-1", "sub:42:2025-12")
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_card_visa")
    days(lab, 31)
    assert ["sub:42:2025-12", "sub:42:2026-04"] == refs(lab)


@pytest.mark.parametrize(
    ("command", "details", "reason"),
    [
        ("subscribe", {"subscription_id": "4111111111111111"}, "card_number"),
        ("subscribe", {"subscription_id": "a/b"}, "bad_id"),
        ("subscribe", {"subscription_id": None}, "missing_field"),
        ("subscribe", {"amount_minor": -1}, "bad_amount"),
        ("subscribe", {"amount_minor": 9.5}, "bad_amount"),
        ("subscribe", {"currency": "XXX"}, "unknown_currency"),
        ("subscribe", {"gateway": "nobody"}, "unknown_gateway"),
        ("subscribe", {"payment_method": "4242424242424242"}, "card_number"),
        ("subscribe", {"product": "upgrade"}, "unknown_product"),
        ("subscribe", {"interval": "hour"}, "unknown_interval"),
        ("subscribe", {"interval": ["month"]}, "unknown_interval"),
        ("subscribe", {"starts_at": "soon"}, "wrong_type"),
        ("subscribe", {"periods": 0}, "wrong_type"),
        ("subscribe", {"amuont": 1}, "unknown_field"),
        ("unsubscribe", {"subscription_id": "no"}, "unknown_subscription"),
        ("unsubscribe", {"subscription_id": "42", "at_once": 1}, "wrong_type"),
        ("change-plan", {"subscription_id": "42"}, "missing_field"),
        ("change-plan", {"subscription_id": "42", "amount_minor": 0}, "bad_amount"),
        ("change-plan", {"subscription_id": "42", "amount_minor": 1, "currency": "EUR"}, "unknown_field"),
        ("update-payment-method", {"subscription_id": "42", "gateway": "stripe"}, "missing_field"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_a_dead_letter(
    lab: OneTask, command: str, details: dict[str, Any], reason: str
) -> None:
    """With its reason; nothing changes."""
    subscribe(lab)
    row = sub(lab)
    if command == "subscribe":
        subscribe(lab, **({"subscription_id": "43"} | details))
    else:
        lab.command(command, **details)
    assert ([reason], row, 1) == (letters(lab), sub(lab), len(lab.sent(PAYMENTS)))


@pytest.mark.parametrize(("age_s", "reason"), [(36 * DAY_S, "expired"), (-400, "requested_in_future")])
def test_an_order_of_another_time_is_refused(lab: OneTask, age_s: float, reason: str) -> None:
    """What was ordered 35 days ago, or by a clock that is wrong, would be charged for the wrong time."""
    at = lab.now_ms - round(age_s * 1000)
    details = {"subscription_id": "42", "amount_minor": 1, "currency": "USD", "payment_method": "pm_x"}
    order = Command("subscribe", "ann", "because", at, "u1", details)
    lab.append(COMMANDS, b"u1", order.to_bytes())
    lab.handle()
    assert ([reason], None) == (letters(lab), lab.row("subscriptions", "u1/42"))


@pytest.mark.parametrize("command", ["change-plan", "update-payment-method"])
def test_a_subscription_that_is_over_cannot_be_changed(lab: OneTask, command: str) -> None:
    """A new one has to be ordered."""
    subscribe(lab)
    lab.command("unsubscribe", subscription_id="42", at_once=True)
    if command == "change-plan":
        lab.command(command, subscription_id="42", amount_minor=5)
    else:
        lab.command(command, subscription_id="42", payment_method="pm_x")
    assert ["subscription_over"] == letters(lab)
