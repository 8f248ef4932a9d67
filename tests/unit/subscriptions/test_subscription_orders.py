"""Orders of subscriptions through the whole application on one task."""

from typing import Any

import orjson
import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import START_MS, OneTask
from support.orders import answers
from support.subscribed import (
    DAY_S,
    OURS,
    attempts,
    days,
    found,
    letters,
    pay,
    refs,
    refusals,
    sub,
    subscribe,
    unknown,
)

from streamsocial_billing.domain.card_numbers import holds_card
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.times import utc
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.settings import COMMANDS, PAYMENTS
from streamsocial_billing.subscriptions.periods import start_of
from streamsocial_billing.subscriptions.renewal import renewal_id

LATER_MS = START_MS + 3_600_000


def test_the_same_order_twice_is_one_subscription(lab: OneTask) -> None:
    """Equal terms: nothing. Other terms under its id: refused, the subscription stays."""
    subscribe(lab)
    row = sub(lab)
    lab.wait(60)
    subscribe(lab)
    assert ([], row, 1) == (refusals(lab), sub(lab), len(lab.results()))
    assert "subscription u1/42 exists with these terms; it is active" == answers(lab)[-1]["why"]
    subscribe(lab, amount_minor=1)
    assert (["subscription_differs"], row) == (refusals(lab), sub(lab))
    assert "subscription u1/42 exists with other terms" == answers(lab)[-1]["why"]


def test_a_cancelled_subscription_does_not_come_back_by_its_old_order(lab: OneTask) -> None:
    """Its payments' ids were used: a new one has a new id, and the refusal says so."""
    subscribe(lab)
    lab.command("unsubscribe", subscription_id="42", at_once=True)
    subscribe(lab)
    said = "subscription u1/42 is cancelled; add a new one, under a new id"
    assert (["subscription_over"], said) == (refusals(lab), answers(lab)[-1]["why"])
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


def test_one_that_was_cancelled_to_the_end_of_its_period_can_still_be_ended_at_once(lab: OneTask) -> None:
    """The later order asks for more than the first: it is carried out, and its answer says so."""
    subscribe(lab)
    lab.command("unsubscribe", subscription_id="42")
    lab.wait(DAY_S)
    ordered_at = lab.now_ms
    lab.command("unsubscribe", subscription_id="42", at_once=True)
    assert f"subscription u1/42 cancelled; ended at {utc(ordered_at)}" == answers(lab)[-1]["why"]
    assert ("cancelled", ordered_at, False) == tuple(
        sub(lab)[name] for name in ("state", "ends_at", "until_paid_end")
    )
    for at_once in (True, False):
        lab.wait(DAY_S)
        lab.command("unsubscribe", subscription_id="42", at_once=at_once)
        said = f"subscription u1/42 was already cancelled; ended at {utc(ordered_at)}"
        assert (said, ordered_at) == (answers(lab)[-1]["why"], sub(lab)["ends_at"])


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
        payment_id="up-1", user_id="u1", product="upgrade", amount_minor=500, currency="USD",
        payment_method="pm_card_visa", gateway="simulated", business_ref="upgrade:42:2025-12",
        requested_at=lab.now_ms,
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
        ("subscribe", {"gateway": None}, "missing_field"),
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
def test_an_order_that_cannot_be_carried_out_is_refused_with_its_reason(
    lab: OneTask, command: str, details: dict[str, Any], reason: str
) -> None:
    """In an answer, as who ordered it waits for one; no dead letter, nothing changes."""
    subscribe(lab)
    row = sub(lab)
    if command == "subscribe":
        subscribe(lab, **({"subscription_id": "43"} | details))
    else:
        lab.command(command, **details)
    assert ([reason], row, 1) == (refusals(lab), sub(lab), len(lab.sent(PAYMENTS)))
    assert not holds_card(answers(lab)[-1]["why"])


def test_a_mistyped_subscription_is_refused_by_name(lab: OneTask) -> None:
    """`subscriptions cancel u1 nope`: the customer is charged on, so the operator has to learn it."""
    lab.command("unsubscribe", subscription_id="nope")
    (answer,) = answers(lab)
    assert ("refused", "u1 has no subscription nope") == (answer["outcome"], answer["why"])


def test_an_order_that_charges_names_its_payment(lab: OneTask) -> None:
    """Who ordered it reads that payment's result; an order that charges nothing names none."""
    subscribe(lab)
    subscribe(lab, subscription_id="later", starts_at=lab.now_ms + 3_600_000)
    lab.command("change-plan", subscription_id="42", amount_minor=1999)
    lab.command("update-payment-method", subscription_id="42", payment_method="soft")
    days(lab, 31)
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_card_visa")
    lab.command("unsubscribe", subscription_id="42")
    first, later, plan, active, past_due, cancelled = answers(lab)
    assert OURS == first["payment_id"]
    assert ["subscription u1/42 added", f"subscription u1/later added; first charge at {utc(LATER_MS)}"] == [
        first["why"], later["why"],
    ]  # fmt: skip
    assert [None] * 4 == [one["payment_id"] for one in (later, plan, active, cancelled)]
    assert past_due["payment_id"] == renewal_id("u1", "sub:42:2026-01", 2)
    assert "subscription u1/42 costs 19.99 USD from the next period on" == plan["why"]
    assert "subscription u1/42 cancelled; ends at " in cancelled["why"]
    lab.command("unsubscribe", subscription_id="42")
    assert "subscription u1/42 was already cancelled; ends at " in answers(lab)[-1]["why"]


def test_an_order_whose_charge_waits_for_its_gateway_says_so(lab: OneTask) -> None:
    """It is done, and the answer's code tells a program that nothing was charged yet."""
    subscribe(lab, gateway="stripe")
    (answer,) = answers(lab)
    assert ("done", "gateway_not_configured", None) == (
        answer["outcome"], answer["code"], answer["payment_id"],
    )  # fmt: skip
    assert answer["why"].endswith("not charged yet: gateway stripe is not configured")


@pytest.mark.parametrize(("age_s", "reason"), [(36 * DAY_S, "expired"), (-400, "requested_in_future")])
def test_an_order_of_another_time_is_refused(lab: OneTask, age_s: float, reason: str) -> None:
    """What was ordered 35 days ago, or by a clock that is wrong, would be charged for the wrong time."""
    at = lab.now_ms - round(age_s * 1000)
    details = {
        "subscription_id": "42", "amount_minor": 1, "currency": "USD", "payment_method": "pm_x",
        "gateway": "simulated",
    }  # fmt: skip
    order = Command("subscribe", "ann", "because", at, "u1", details)
    lab.append(COMMANDS, b"u1", order.to_bytes())
    lab.handle()
    assert ([reason], None) == (refusals(lab), lab.row("subscriptions", "u1/42"))


@pytest.mark.parametrize("command", ["change-plan", "update-payment-method"])
def test_a_subscription_that_is_over_cannot_be_changed(lab: OneTask, command: str) -> None:
    """A new one has to be ordered."""
    subscribe(lab)
    lab.command("unsubscribe", subscription_id="42", at_once=True)
    if command == "change-plan":
        lab.command(command, subscription_id="42", amount_minor=5)
    else:
        lab.command(command, subscription_id="42", payment_method="pm_x")
    assert ["subscription_over"] == refusals(lab)
