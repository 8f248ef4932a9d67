"""Renewals whose payment waits for its customer: past due, told once, ended before the next try."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from support.asked_gateway import HOUR_S
from support.audited import breaks
from support.gateway_said import report, say
from support.intent_bank import IntentBank
from support.one_task import OneTask

from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.settings import AUTHENTICATIONS, Settings

DAY_S = 24 * HOUR_S


@pytest.fixture
def bank() -> IntentBank:
    """The gateway."""
    return IntentBank()


@pytest.fixture
def lab(bank: IntentBank) -> Iterator[OneTask]:
    """The app."""
    with OneTask(bank) as made:
        yield made


def subscribe(lab: OneTask, method: str = "pm_auth") -> None:
    """A month for 9.99, charged now."""
    lab.command("subscribe", subscription_id="s1", amount_minor=999, currency="USD", gateway="simulated",
                payment_method=method)  # fmt: skip


def sub(lab: OneTask) -> Any:
    """The subscription."""
    return lab.row("subscriptions", "u1/s1")


def later(lab: OneTask, seconds: float) -> None:
    """Time passes in steps of some hours, as looks do."""
    while seconds > 0:
        step = min(seconds, 6 * HOUR_S)
        lab.wait(step)
        seconds -= step
        for _ in range(4):
            lab.look()
            lab.wait(6)


def requests(lab: OneTask) -> list[str]:
    """The intents that the platform was told of."""
    return [orjson.loads(one.value)["gateway_ref"] for one in lab.sent(AUTHENTICATIONS)]


def test_it_is_past_due_and_the_platform_is_told_once(lab: OneTask, bank: IntentBank) -> None:
    """Nothing is silent; the day of dunning is named."""
    subscribe(lab)
    found = sub(lab)
    later(lab, 20 * HOUR_S)

    assert ("past_due", AUTHENTICATION_REQUIRED, AUTHENTICATION_REQUIRED) == (
        found["state"], found["reason"], found["pending"]["status"],
    )  # fmt: skip
    assert found["first_declined_at"] + DAY_S * 1000 == found["next_at"] == sub(lab)["next_at"]
    assert (["pi_1"], 1, []) == (requests(lab), len(bank.intents), bank.ended)


def test_a_customer_who_comes_pays_the_period(lab: OneTask, bank: IntentBank) -> None:
    """Active again; no second try."""
    subscribe(lab)
    bank.confirm()
    payment_id = sub(lab)["pending"]["payment_id"]
    say(lab, report(
        "charge", "succeeded", "pi_1", payment_id=payment_id, ref=gateway_key_of("u1", "charge", payment_id),
        amount_minor=999, intent="pi_1",
    ))  # fmt: skip
    later(lab, 5 * DAY_S)

    assert ("active", None, 1) == (sub(lab)["state"], sub(lab)["pending"], len(bank.intents))
    assert [] == breaks(lab)


def test_the_day_of_dunning_cancels_then_tries(lab: OneTask, bank: IntentBank) -> None:
    """On day 1 the first intent is canceled and a second one made; at most one of them can be paid."""
    subscribe(lab)
    later(lab, DAY_S + HOUR_S)
    assert (["pi_1"], ["canceled", "pending"]) == (bank.ended, [one.status for one in bank.intents])
    assert ["pi_1", "pi_2"] == requests(lab)
    later(lab, 11 * DAY_S)

    assert 5 == len(bank.intents)
    assert {"canceled"} == {one.status for one in bank.intents}
    assert ("unpaid", None) == (sub(lab)["state"], sub(lab)["pending"])
    assert [] == breaks(lab)


def test_confirmed_on_the_day_of_dunning_no_second_try_goes_out(lab: OneTask, bank: IntentBank) -> None:
    """The cancellation finds it paid."""
    subscribe(lab)
    later(lab, 20 * HOUR_S)
    bank.confirm()
    later(lab, 2 * DAY_S)

    assert ("active", 1, 1) == (sub(lab)["state"], len(bank.intents), len(bank.paid()))


def test_while_the_gateway_is_away_no_second_try_goes_out(lab: OneTask, bank: IntentBank) -> None:
    """Only a confirmed cancellation makes room for one."""
    subscribe(lab)
    bank.mood = "unsent"
    later(lab, 2 * DAY_S)
    before = len(bank.intents)
    bank.mood = "ok"
    bank.confirm()
    later(lab, DAY_S)

    assert (1, 1, "active") == (before, len(bank.intents), sub(lab)["state"])


def test_a_new_payment_method_is_tried_once_the_old_intent_is_canceled(
    lab: OneTask, bank: IntentBank
) -> None:
    """At once, as with any payment that is past due."""
    subscribe(lab)
    lab.command("update-payment-method", subscription_id="s1", payment_method="pm_card_visa",
                gateway="simulated")  # fmt: skip
    later(lab, HOUR_S)

    assert (["canceled", "succeeded"], "active") == (
        [one.status for one in bank.intents], sub(lab)["state"],
    )  # fmt: skip


def test_without_dunning_it_ends_after_its_days(bank: IntentBank) -> None:
    """Unpaid, as no try is planned."""
    with OneTask(bank, settings=Settings(partitions=1, dunning_days="")) as lab:
        subscribe(lab)
        assert ("past_due", None) == (sub(lab)["state"], sub(lab)["next_at"])
        later(lab, 3 * DAY_S + HOUR_S)
        assert (["pi_1"], "unpaid") == (bank.ended, sub(lab)["state"])


def test_one_that_was_cancelled_meanwhile_stays_so(lab: OneTask, bank: IntentBank) -> None:
    """Its intent ends on its day; nobody tries again."""
    subscribe(lab)
    lab.command("unsubscribe", subscription_id="s1", at_once=True)
    later(lab, 4 * DAY_S)

    assert ("cancelled", 1, "canceled") == (
        sub(lab)["state"], len(bank.intents), bank.intents[0].status,
    )  # fmt: skip
