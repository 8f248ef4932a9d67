"""Renewals through the whole application on one task, over virtual months."""

from collections import Counter

import orjson
import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import START_MS, OneTask
from support.subscribed import DAY_S, OURS, attempts, days, found, pay, refs, sub, subscribe, unknown

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Declined
from streamsocial_billing.settings import PAYMENTS, Settings
from streamsocial_billing.subscriptions.periods import DAY_MS, start_of
from streamsocial_billing.subscriptions.renewal import renewal_id, subscription_of

# ---- what is sent


def test_the_id_of_an_attempt_is_a_function_of_user_period_attempt() -> None:
    """Pinned: another id is a second charge. The parts cannot run into each other."""
    assert "r1_980afe891a48687f7122ee30b4d30baf341c72d5" == renewal_id("u1", "sub:42:2026-12", 1)
    assert renewal_id("u1", "sub:42:2026-12", 11) != renewal_id("u1", "sub:42:2026-121", 1)


def test_a_subscription_is_charged_when_it_is_ordered(lab: OneTask) -> None:
    """In the unit of the order: event with its `requested` metric, and the row says what is under way."""
    subscribe(lab)
    [event] = [orjson.loads(one.value) for one in lab.sent(PAYMENTS)]
    assert renewal_id("u1", "sub:42:2025-12", 1) == event["payment_id"]
    assert ("subscription", 999, "sub:42:2025-12", START_MS) == (
        event["product"], event["amount_minor"], event["business_ref"], round(event["requested_at"], -3),
    )  # fmt: skip
    assert ["requested", "succeeded"] == [one["status"] for one in lab.metrics()]
    row = sub(lab)
    assert ("active", 1, None) == (row["state"], row["period"], row["pending"])
    assert start_of(row["anchor"], "month", 1) == row["next_at"]


def test_a_year_of_renewals_is_charged_once_each(lab: OneTask, gateway: AskedGateway) -> None:
    """Twelve months, looked at daily: twelve periods in order, each one charge."""
    subscribe(lab)
    days(lab, 364)
    expected = ["sub:42:2025-12", *(f"sub:42:2026-{month:02}" for month in range(1, 12))]
    assert expected == refs(lab)
    assert 12 == len(gateway.charges) == len(gateway.calls) == len(lab.sent(PAYMENTS))
    assert {"requested": 12, "succeeded": 12} == Counter(one["status"] for one in lab.metrics())


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("year", ["2025-12-01"]), ("week", [f"2025-12-{d:02}" for d in (1, 8, 15)]),
     ("day", [f"2025-12-{d:02}" for d in range(1, 22)])],
)  # fmt: skip
def test_each_interval_renews_at_its_own_pace(lab: OneTask, interval: str, expected: list[str]) -> None:
    """Three weeks of each."""
    subscribe(lab, interval=interval)
    days(lab, 20)
    assert [f"sub:42:{name}" for name in expected] == refs(lab)


def test_a_start_to_come_is_a_trial(lab: OneTask) -> None:
    """Nothing is sent before it; from then on each period."""
    subscribe(lab, starts_at=START_MS + 14 * DAY_MS)
    days(lab, 13)
    assert ([], "active") == (refs(lab), sub(lab)["state"])
    days(lab, 2)
    assert ["sub:42:2025-12"] == refs(lab)


def test_of_a_start_in_the_past_only_the_day_counts(lab: OneTask) -> None:
    """A subscription that is taken over renews at its next day, no earlier period is charged."""
    subscribe(lab, starts_at=START_MS - 100 * DAY_MS)
    assert [] == refs(lab)
    days(lab, 31)
    assert ["sub:42:2025-12"] == refs(lab)
    assert start_of(START_MS - 100 * DAY_MS, "month", 5) == sub(lab)["next_at"]


def test_a_gift_of_three_months_ends_after_three_payments(lab: OneTask) -> None:
    """`ended`, with the moment up to which it is paid."""
    subscribe(lab, product="gift", periods=3)
    days(lab, 200)
    row = sub(lab)
    assert (3, "ended", None) == (len(refs(lab)), row["state"], row["next_at"])
    assert start_of(row["anchor"], "month", 3) == row["ends_at"]
    assert {"gift"} == {one["product"] for one in lab.results()}


# ---- the scheduler


def test_a_trigger_that_is_doubled_or_early_sends_nothing_more(lab: OneTask) -> None:
    """It acts only on what is due."""
    subscribe(lab)
    for _ in range(3):
        lab.subscription_trigger("u1", "42")
        lab.subscription_trigger("u1", "other")
    assert 1 == len(lab.sent(PAYMENTS))
    lab.wait(31 * DAY_S)
    for _ in range(3):
        lab.subscription_trigger("u1", "42")
    assert ["sub:42:2025-12", "sub:42:2026-01"] == refs(lab)


def test_a_trigger_that_is_lost_comes_again(lab: OneTask) -> None:
    """A minute later: nothing but the table says what is due."""
    subscribe(lab)
    lab.wait(31 * DAY_S)
    assert 1 == lab.loop.run_until_complete(lab.renewing.run_once(lab.now_ms))
    lab.kafka.logs[lab.settings.topic("payments-retry"), 0].clear()
    lab.wait(59)
    assert 0 == lab.loop.run_until_complete(lab.renewing.run_once(lab.now_ms))
    lab.wait(2)
    assert 1 == lab.look()
    assert 2 == len(refs(lab))


def test_after_a_long_stop_each_missed_period_is_charged_oldest_first(lab: OneTask) -> None:
    """One after the other, the next only once the one before is paid; each asked for now, so none expires."""
    subscribe(lab)
    lab.wait(100 * DAY_S)
    lab.look()
    assert ["sub:42:2025-12", "sub:42:2026-01"] == refs(lab)
    for _ in range(3):
        lab.wait(61)
        lab.look()
    assert [f"sub:42:{name}" for name in ("2025-12", "2026-01", "2026-02", "2026-03")] == refs(lab)
    assert [0.0, 100.0, 100.0, 100.0] == attempts(lab)


def test_a_look_is_bounded_and_goes_on_where_it_stopped(lab: OneTask) -> None:
    """On the first of a month no more than the measure per look; nobody is left out."""
    subscribe(lab)
    row = sub(lab)
    for number in range(150):
        lab.put("subscriptions", f"user-{number}/42", row | {"next_at": lab.now_ms})
    looks = [lab.loop.run_until_complete(lab.renewing.run_once(lab.now_ms)) for _ in range(4)]
    assert [50, 50, 50, 0] == looks


# ---- dunning


@pytest.mark.parametrize(("tries", "day"), [(2, 1), (3, 3), (4, 5), (5, 7)])
def test_a_soft_decline_is_tried_again_on_the_days_of_dunning(lab: OneTask, tries: int, day: int) -> None:
    """Days 1, 3, 5, 7 after the first decline; each a payment of its own, all with one business_ref."""
    subscribe(lab, "soft")
    days(lab, day)
    assert (tries, float(day)) == (len(attempts(lab)), attempts(lab)[-1])
    assert ["sub:42:2025-12"] * tries == refs(lab, "declined")
    sent = [orjson.loads(one.value)["payment_id"] for one in lab.sent(PAYMENTS)]
    assert [renewal_id("u1", "sub:42:2025-12", number + 1) for number in range(tries)] == sent


def test_after_the_last_day_of_dunning_nothing_is_tried_any_more(lab: OneTask) -> None:
    """`unpaid`, and the row says why; no period is sent after it either."""
    subscribe(lab, "soft")
    assert ("past_due", "insufficient_funds") == (sub(lab)["state"], sub(lab)["reason"])
    days(lab, 90)
    row = sub(lab)
    assert ("unpaid", "insufficient_funds", None) == (row["state"], row["reason"], row["next_at"])
    assert [0.0, 1.0, 3.0, 5.0, 7.0] == attempts(lab)


def test_dunning_stops_on_recovery(lab: OneTask, gateway: AskedGateway) -> None:
    """The first try that succeeds pays the period; the next one begins on its own day."""
    subscribe(lab, "soft")
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_card_visa")
    row = sub(lab)
    assert ("active", 1, 0, None) == (row["state"], row["period"], row["attempt"], row["reason"])
    days(lab, 32)
    assert ["sub:42:2025-12", "sub:42:2026-01"] == refs(lab)
    assert [0.0, 0.0, 31.0] == attempts(lab)


def test_a_hard_decline_ends_dunning_at_once(lab: OneTask) -> None:
    """No second try of a lost card."""
    subscribe(lab, "declined")
    days(lab, 60)
    row = sub(lab)
    assert ([0.0], "unpaid", "card_declined") == (attempts(lab), row["state"], row["reason"])


def test_a_hard_decline_amid_dunning_ends_it(lab: OneTask, gateway: AskedGateway) -> None:
    """Days that are left are not used."""
    subscribe(lab, "soft")
    gateway.script = [Declined("lost_card", None)]
    days(lab, 60)
    row = sub(lab)
    assert ([0.0, 1.0], "unpaid", "lost_card") == (attempts(lab), row["state"], row["reason"])


def test_days_of_dunning_that_passed_while_no_worker_ran_bring_one_try(lab: OneTask) -> None:
    """Not one for each: the next try is on the next day that lies ahead."""
    subscribe(lab, "soft")
    lab.wait(5.5 * DAY_S)
    lab.look()
    days(lab, 20)
    assert [0.0, 5.5, 7.5] == attempts(lab)


def test_a_setting_says_on_which_days_is_dunned(gateway: AskedGateway) -> None:
    """BILLING_DUNNING_DAYS; empty: never."""
    for chosen, expected in (("2,10", [0.0, 2.0, 10.0]), ("", [0.0])):
        with OneTask(gateway, settings=Settings(partitions=1, dunning_days=chosen)) as lab:
            subscribe(lab, "soft")
            days(lab, 20)
            assert (expected, "unpaid") == (attempts(lab), sub(lab)["state"])


def test_a_callers_own_payment_is_never_dunned(lab: OneTask) -> None:
    """With a subscription's business_ref or without: only what the scheduler sent is tried again."""
    subscribe(lab, starts_at=START_MS + 40 * DAY_MS)
    pay(lab, "p1", "sub:42:2026-01", "soft")
    pay(lab, "p2", "sub:43:2026-01", "soft")
    days(lab, 20)
    assert ([], "active") == (attempts(lab), sub(lab)["state"])


# ---- unknown outcomes

def test_while_a_payment_is_unknown_nothing_is_sent(lab: OneTask, gateway: AskedGateway) -> None:
    """Neither dunning nor the next period: it may have been charged. At last it is parked."""
    unknown(gateway, found("pending", OURS))
    subscribe(lab)
    pending = sub(lab)["pending"]
    assert pending is not None
    assert ("unknown", None) == (pending["status"], sub(lab)["next_at"])
    days(lab, 40)
    pending = sub(lab)["pending"]
    assert pending is not None
    assert (1, "parked", 0) == (len(lab.sent(PAYMENTS)), pending["status"], sub(lab)["period"])


def test_an_unknown_payment_that_turns_out_paid_advances_the_period(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """By the trigger that resolves it."""
    unknown(gateway, found("succeeded", OURS))
    subscribe(lab)
    assert 0 == sub(lab)["period"]
    lab.wait(10)
    lab.look()
    assert ("active", 1, None) == (sub(lab)["state"], sub(lab)["period"], sub(lab)["pending"])
    assert 1 == len(lab.sent(PAYMENTS))


def test_an_unknown_payment_that_turns_out_declined_begins_dunning_then(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The days count from the moment at which the decline is known."""
    unknown(gateway, found("declined", OURS, soft=True))
    subscribe(lab)
    lab.wait(DAY_S / 2)
    lab.look()
    assert "past_due" == sub(lab)["state"]
    days(lab, 2)
    assert ([0.0, 1.5], 1) == (attempts(lab), sub(lab)["period"])


def test_a_payment_that_was_given_up_is_tried_again_as_after_a_soft_decline(lab: OneTask) -> None:
    """A gateway that was away for a day is nothing that the user did."""
    subscribe(lab, "not_sent")
    days(lab, 3, looks=30)
    assert "failed" in {one["status"] for one in lab.results()}
    assert ("past_due", "gave_up") == (sub(lab)["state"], sub(lab)["reason"])


def test_a_request_that_the_gateway_cannot_accept_is_not_repeated(lab: OneTask) -> None:
    """The same request again meets the same answer."""
    subscribe(lab, "invalid")
    days(lab, 10)
    assert ([0.0], "unpaid", "invalid_request") == (attempts(lab), sub(lab)["state"], sub(lab)["reason"])


def test_a_renewal_waits_for_a_gateway_that_is_not_configured(
    lab: OneTask, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be refused without a trace: it is not sent, looked at each hour, with an alarm."""
    subscribe(lab, gateway="paypal")
    row = sub(lab)
    assert (0, None, 0) == (len(lab.sent(PAYMENTS)), row["pending"], row["attempt"])
    assert row["next_at"] == row["created_at"] + HOUR_S * 1000
    assert "gateway paypal is not configured" in caplog.text
    paypal = AskedGateway()
    paypal.name = "paypal"
    with OneTask(paypal) as later:
        later.put("subscriptions", "u1/42", row)
        later.wait(HOUR_S)
        later.look()
        assert ["sub:42:2025-12"] == refs(later)


def lose_what_was_sent(lab: OneTask) -> None:
    """Order a subscription whose payment never comes to be handled."""
    lab.loses_what_is_sent = True
    subscribe(lab)
    lab.loses_what_is_sent = False


def test_a_payment_without_an_outcome_is_sent_again_as_the_same_event(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Whatever was changed meanwhile: the same id with the same terms, so it is charged once."""
    lose_what_was_sent(lab)
    lab.command("update-payment-method", subscription_id="42", payment_method="pm_other")
    lab.command("change-plan", subscription_id="42", amount_minor=5)
    lab.wait(HOUR_S)
    lab.look()
    first, second = (orjson.loads(one.value) for one in lab.sent(PAYMENTS))
    assert first | {"requested_at": 0} == second | {"requested_at": 0}
    assert HOUR_S * 1000 <= second["requested_at"] - first["requested_at"]
    assert (1, 1, 1) == (len(gateway.calls), sub(lab)["period"], len(refs(lab)))


def test_a_payment_without_an_outcome_is_not_sent_again_once_the_gateway_may_have_forgotten(
    lab: OneTask, gateway: AskedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that died may have made the call: past half of the window a person has to look."""
    lose_what_was_sent(lab)
    lab.wait(10 * HOUR_S)
    lab.look()
    row = sub(lab)
    assert (1, None) == (len(lab.sent(PAYMENTS)), row["next_at"])
    assert f"payment {OURS} has no outcome" in caplog.text
    event = orjson.loads(lab.sent(PAYMENTS)[0].value)
    lab.send(PaymentEvent(**event | {"requested_at": lab.now_ms}))
    assert (1, None) == (sub(lab)["period"], sub(lab)["pending"])


def test_an_outcome_that_no_hook_told_is_found_an_hour_later(lab: OneTask, gateway: AskedGateway) -> None:
    """A worker of the release before handled it, amid a deploy: nothing is sent again."""
    lose_what_was_sent(lab)
    row = sub(lab)
    lab.send(PaymentEvent(**orjson.loads(lab.sent(PAYMENTS)[0].value)))
    lab.put("subscriptions", "u1/42", row)
    lab.wait(HOUR_S)
    lab.look()
    assert (1, 1, None) == (len(lab.sent(PAYMENTS)), sub(lab)["period"], sub(lab)["pending"])


def test_an_id_that_a_caller_took_for_another_payment_is_left_to_it(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Ours is refused as a mismatch: an hour later the next attempt goes out."""
    pay(lab, OURS, "something-else")
    subscribe(lab)
    assert ["succeeded", "rejected"] == [one["status"] for one in lab.results()]
    for _ in range(2):
        lab.wait(HOUR_S)
        lab.look()
    assert ["something-else", "sub:42:2025-12"] == refs(lab)
    assert (1, None) == (sub(lab)["period"], sub(lab)["pending"])


# ---- other payments for the same period


def test_a_period_that_another_payment_paid_is_not_charged(lab: OneTask, gateway: AskedGateway) -> None:
    """The user paid on a web page before: refused as duplicate_business_ref, the period counts as paid."""
    pay(lab, "web-1", "sub:42:2025-12")
    subscribe(lab)
    row = sub(lab)
    assert (1, 1, "active", None) == (len(gateway.charges), row["period"], row["state"], row["pending"])


def test_another_payment_amid_dunning_pays_the_period(lab: OneTask) -> None:
    """Recovery by any payment with its business_ref."""
    subscribe(lab, "soft")
    pay(lab, "web-1", "sub:42:2025-12")
    days(lab, 10)
    assert (1, "active", [0.0]) == (sub(lab)["period"], sub(lab)["state"], attempts(lab))


@pytest.mark.parametrize(("status", "sent"), [("succeeded", 1), ("declined", 2)])
def test_another_payment_that_is_unknown_is_waited_for(
    lab: OneTask, gateway: AskedGateway, status: str, sent: int
) -> None:
    """Paid: the period is paid. Declined: ours goes out then, as another attempt."""
    unknown(gateway, found(status, "web-1"))
    pay(lab, "web-1", "sub:42:2025-12")
    subscribe(lab)
    pending = sub(lab)["pending"]
    assert pending is not None
    assert ("web-1", False, None) == (pending["payment_id"], pending["ours"], sub(lab)["next_at"])
    for _ in range(2):
        lab.wait(10)
        lab.look()
    row = sub(lab)
    assert (1, None, "active", sent) == (
        row["period"], row["pending"], row["state"], len(lab.sent(PAYMENTS)),
    )  # fmt: skip
    assert ["sub:42:2025-12"] == refs(lab)


def test_a_business_ref_names_its_subscription() -> None:
    """Only those of ours are looked at."""
    refs = ("sub:42:2026-12", "sub:42:2026-12-01", "sub:42", "order:42:1", None)
    assert ["42", "42", None, None, None] == [subscription_of(ref) for ref in refs]
