"""Intents that wait for their customer: the rows of decision 0072, through the whole app on one task."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from support.asked_gateway import HOUR_S, AskedGateway
from support.audited import breaks
from support.gateway_said import ours, say
from support.intent_bank import IntentBank
from support.one_task import OneTask
from support.orders import resolve
from support.wishes import charge, refund

from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED, PENDING
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.payments.reported_by_gateway import external_id
from streamsocial_billing.settings import AUTHENTICATIONS, PAYMENTS

DAY_S = 24 * HOUR_S
WAITS = ("unknown", AUTHENTICATION_REQUIRED)


@pytest.fixture
def bank() -> IntentBank:
    """The gateway."""
    return IntentBank()


@pytest.fixture
def lab(bank: IntentBank) -> Iterator[OneTask]:
    """The app."""
    with OneTask(bank) as made:
        yield made


def begin(lab: OneTask, method: str = "pm_auth", **fields: Any) -> dict[str, Any]:
    """The charge c1; its first result."""
    (first,) = lab.send(charge(lab, payment_method=method, **fields))
    return first


def told(status: str, ref: str = "pi_1", **fields: Any) -> GatewayEvent:
    """A message about the intent of c1."""
    return ours("charge", status, "c1", ref, **{"intent": "pi_1", "intent_charge": "ch_1"} | fields)


def state(lab: OneTask) -> tuple[str, str | None]:
    """Status and reason of c1."""
    entry = lab.entry("u1", "c1")
    return entry["status"], entry["reason"]


def resolving(lab: OneTask) -> list[tuple[str, str | None]]:
    """The settling results of c1."""
    return [
        (one["status"], one["reason"]) for one in lab.results()
        if one["resolves"] and one["payment_id"] == "c1"
    ]  # fmt: skip


def requests(lab: OneTask) -> list[Any]:
    """What the platform was told."""
    return [orjson.loads(one.value) for one in lab.sent(AUTHENTICATIONS)]


def later(lab: OneTask, seconds: float) -> None:
    """Time passes; what is due is looked at."""
    lab.wait(seconds)
    lab.look()


def test_row_authentication_required_is_not_final(lab: OneTask, bank: IntentBank) -> None:
    """Unknown with that reason and the intent; the platform is told once; nothing calls again or parks it."""
    first = begin(lab, business_ref="b1")
    entry, listed = lab.entry("u1", "c1"), lab.row("open_payments", "u1/c1")
    assert (*WAITS, "pi_1", "ch_1") == (
        first["status"], first["reason"], first["gateway_ref"], first["intent_charge"],
    )  # fmt: skip
    assert ("pi_1", "ch_1", None) == (entry["intent"], entry["intent_charge"], entry["next_try_at"])
    assert (None, entry["authentication"]["look_at"]) == (listed["next_try_at"], listed["look_at"])
    for _ in range(10):
        later(lab, 6 * HOUR_S)
    (request,) = requests(lab)

    assert (WAITS, 1, []) == (state(lab), len(bank.calls), resolving(lab))
    assert 1 < len(bank.asked) and {"pi_1"} == set(bank.asked)
    assert ("c1", "pi_1", "b1", first["processed_at"] + 3 * DAY_S * 1000) == (
        request["payment_id"], request["gateway_ref"], request["business_ref"], request["until"],
    )  # fmt: skip
    (other,) = lab.send(charge(lab, "c2", business_ref="b1"))
    assert ("rejected", "duplicate_business_ref", "c1") == (
        other["status"], other["reason"], other["conflicts_with"],
    )  # fmt: skip


def test_who_waits_for_a_customer_alarms_nobody(lab: OneTask) -> None:
    """It is counted among the open ones, and is never the oldest of them."""
    begin(lab)
    lab.look()
    open_now = lab.gatekeeper.open_counts.total()

    assert {("simulated", "unknown"): 1} == dict(open_now.counts)
    assert {} == open_now.oldest_ms


@pytest.mark.parametrize("first", ["webhook", "question", "event"])
def test_row_confirmed_is_settled_once_whoever_hears_of_it_first(
    lab: OneTask, bank: IntentBank, first: str
) -> None:
    """One result that resolves it; the others find it settled."""
    begin(lab)
    bank.confirm()
    ways = ["webhook", "question", "event"]
    for way in [first, *(one for one in ways if one != first)]:
        if way == "webhook":
            say(lab, told("succeeded"), told("succeeded"))
        elif way == "event":
            lab.send(charge(lab, payment_method="pm_auth"))
            lab.look()
        else:
            later(lab, HOUR_S)

    assert ([("succeeded", None)], 1) == (resolving(lab), len(bank.calls))
    assert ("pi_1", "ch_1") == (lab.entry("u1", "c1")["gateway_ref"], lab.entry("u1", "c1")["intent_charge"])
    assert None is lab.row("open_payments", "u1/c1")
    assert [] == breaks(lab)


def test_row_abandoned_is_canceled_then_declined(lab: OneTask, bank: IntentBank) -> None:
    """After BILLING_AUTHENTICATION_DAYS: asked for, canceled, declined; the business_ref is free."""
    begin(lab, business_ref="b1")
    for _ in range(11):
        later(lab, 6 * HOUR_S)
    before = len(bank.ended)
    later(lab, 6 * HOUR_S + 1)
    (second,) = lab.send(charge(lab, "c2", business_ref="b1"))

    assert (0, ["pi_1"]) == (before, bank.ended)
    assert [("declined", AUTHENTICATION_REQUIRED)] == resolving(lab)
    assert lab.entry("u1", "c1")["soft"] and "authentication" not in lab.entry("u1", "c1")
    assert "succeeded" == second["status"]


def test_row_confirmed_while_we_cancel_is_a_success(lab: OneTask, bank: IntentBank) -> None:
    """What the intent is after our cancellation counts."""

    class Racing(IntentBank):
        async def cancel(self, request: Any, *, timeout_s: float) -> Any:
            """The customer was quicker."""
            self.confirm()
            return await super().cancel(request, timeout_s=timeout_s)

    racing = Racing()
    with OneTask(racing) as other:
        begin(other)
        for _ in range(13):
            later(other, 6 * HOUR_S)
        assert ([("succeeded", None)], {"c1": 500}) == (resolving(other), racing.paid())


def test_row_a_cancellation_that_is_lost_declines_nothing(lab: OneTask, bank: IntentBank) -> None:
    """Only a confirmed one: it is asked for again, soon."""
    begin(lab)
    later(lab, 600)
    lab.wait(3 * DAY_S)
    bank.mood = "lost"
    lab.look()
    assert (WAITS, []) == (state(lab), resolving(lab))
    bank.mood = "ok"
    later(lab, 601)

    assert [("declined", AUTHENTICATION_REQUIRED)] == resolving(lab)


@pytest.mark.parametrize("reason", ["lost_card", "payment_intent_authentication_failure"])
def test_row_a_failed_attempt_is_no_end(lab: OneTask, bank: IntentBank, reason: str) -> None:
    """The customer may try again: told or asked."""
    begin(lab)
    by_its_charge = told("declined", "ch_1", reason=reason, intent=None, intent_charge=None)
    say(lab, told("declined", reason=reason), by_its_charge)
    bank.intents[0].status, bank.intents[0].reason = "declined", reason
    later(lab, HOUR_S)

    assert (WAITS, []) == (state(lab), resolving(lab))
    assert 1 == len(requests(lab))


def test_row_canceled_at_the_gateway_is_declined(lab: OneTask) -> None:
    """By the platform, in the dashboard: told once or twice."""
    begin(lab)
    say(lab, told("declined", reason="canceled", canceled=True), told("declined", canceled=True))

    assert [("declined", AUTHENTICATION_REQUIRED)] == resolving(lab)


def test_row_processing_after_it_waited_is_not_canceled(lab: OneTask, bank: IntentBank) -> None:
    """Its customer confirmed a bank debit: the deadline ends what waits for a customer, no debit at work."""
    begin(lab)
    bank.intents[0].reason = PENDING
    for _ in range(20):
        later(lab, 6 * HOUR_S)
    assert (("unknown", PENDING), []) == (state(lab), bank.ended)
    bank.confirm()
    later(lab, 6 * HOUR_S)

    assert [("succeeded", None)] == resolving(lab)


def test_row_processing_is_open_until_told_or_asked(lab: OneTask, bank: IntentBank) -> None:
    """A debit takes weeks: asked for by its id, never called again, never parked."""
    begin(lab, "pm_processing")
    for _ in range(40):
        later(lab, 25 * HOUR_S)

    assert (("unknown", PENDING), 1, {"pi_1"}) == (state(lab), len(bank.calls), set(bank.asked))
    assert [] == requests(lab)
    say(lab, told("succeeded"))
    assert [("succeeded", None)] == resolving(lab)


def test_row_a_lost_reply_is_found_to_want_its_customer(lab: OneTask, bank: IntentBank) -> None:
    """By our reference, as its id is not known; then the platform is told, once."""
    bank.mood = "lost"
    begin(lab)
    assert [] == requests(lab)
    bank.mood = "ok"
    later(lab, 6)
    later(lab, 6 * HOUR_S)

    assert (WAITS, [None, "pi_1"]) == (state(lab), bank.asked)
    assert ["pi_1"] == [one["gateway_ref"] for one in requests(lab)]


def test_row_told_that_it_wants_its_customer(lab: OneTask, bank: IntentBank) -> None:
    """An open payment begins to wait by a message, too."""
    bank.mood = "lost"
    begin(lab)
    say(lab, told("pending", reason=AUTHENTICATION_REQUIRED), told("pending", reason=AUTHENTICATION_REQUIRED))

    assert (WAITS, 1) == (state(lab), len(requests(lab)))


def test_row_told_before_its_event_is_adopted(lab: OneTask) -> None:
    """Observed as pending: its event begins to wait, without a call."""
    say(lab, told("declined", reason="lost_card"))
    assert "declined" == lab.entry("u1", "c1")["seen"]
    with OneTask(bank := IntentBank()) as other:
        say(other, told("pending", reason=AUTHENTICATION_REQUIRED), told("declined", reason="lost_card"))
        first = begin(other)

        assert (WAITS, [], "pi_1") == (state(other), bank.calls, first["gateway_ref"])
        assert 1 == len(requests(other))


def test_row_a_success_after_our_decline_is_booked_and_can_be_refunded(
    lab: OneTask, bank: IntentBank, caplog: pytest.LogCaptureFixture
) -> None:
    """An external charge, once for the intent, by either name; its refund goes to the intent."""
    begin(lab, "pm_declined")
    bank.confirm()
    (late,) = say(lab, told("succeeded"), told("succeeded"))
    late_id = external_id("simulated", "pi_1", "succeeded")
    assert ("succeeded", "succeeded_after_decline", "external", late_id, "c1", 500) == (
        late["status"], late["reason"], late["origin"], late["payment_id"], late["refund_of"],
        late["amount_minor"],
    )  # fmt: skip
    assert ("declined", "lost_card") == state(lab)
    assert "was confirmed afterwards" in caplog.text
    (back,) = lab.send(refund(lab, "r1", 500, refund_of=late_id))

    assert ("succeeded", 500) == (back["status"], lab.entry("u1", late_id)["refunded_minor"])
    assert [] == breaks(lab)


def test_row_another_intent_under_our_reference_contradicts(lab: OneTask, bank: IntentBank) -> None:
    """It is for a person, as before."""
    begin(lab, "pm_declined")
    assert [] == say(lab, told("succeeded", "pi_9", intent="pi_9", intent_charge="ch_9"))


def test_row_each_name_of_one_payment_is_one_effect(lab: OneTask) -> None:
    """`charge.succeeded` beside `payment_intent.succeeded`; a second charge of the intent contradicts."""
    begin(lab, "pm_card_visa")
    assert [] == say(lab, told("succeeded"), told("succeeded", intent_charge=None))
    money = lab.row("charges", "u1")["money"]["USD"]

    assert 500 == money["charged_minor"]


def test_row_a_refund_of_it_names_the_intent(lab: OneTask, bank: IntentBank) -> None:
    """And what the gateway tells of refunds is matched by the intent or by its charge."""
    begin(lab)
    bank.confirm()
    say(lab, told("succeeded"))
    (back,) = lab.send(refund(lab))
    for number, ref in enumerate(("pi_1", "ch_1")):
        about = {"charge_ref": ref, "charge_id": "c1", "amount_minor": 50}
        made = ours("refund", "succeeded", "x", f"re_{number}", **about)
        say(lab, replace(made, ref=None, payment_id=None))

    assert ("succeeded", 300) == (back["status"], lab.entry("u1", "c1")["refunded_minor"])
    assert [] == breaks(lab)


@pytest.mark.parametrize("confirmed", [False, True])
def test_row_resolved_by_hand_cancels_first(lab: OneTask, bank: IntentBank, confirmed: bool) -> None:
    """Declined only once the intent is canceled; one that was confirmed is left to its success."""
    begin(lab)
    if confirmed:
        bank.confirm()
    resolve(lab, "declined", None, "c1")

    if confirmed:
        assert (WAITS, []) == (state(lab), resolving(lab))
    else:
        assert ([("declined", "resolved")], "canceled") == (resolving(lab), bank.intents[0].status)


def test_row_resolved_by_hand_while_the_gateway_is_away_is_refused(lab: OneTask, bank: IntentBank) -> None:
    """Its customer may be confirming it."""
    begin(lab)
    bank.mood = "unsent"
    resolve(lab, "declined", None, "c1")
    assert WAITS == state(lab)


def test_a_redelivery_after_a_crash_waits_as_well(lab: OneTask, bank: IntentBank) -> None:
    """The same key brings the first answer; what became of the intent since is asked for."""
    event = charge(lab, payment_method="pm_auth")
    lab.append(PAYMENTS, b"u1", event.to_bytes())
    lab.deliver()
    lab.loop.settle()
    lab.crash()
    bank.confirm()
    lab.handle()
    assert WAITS == state(lab)
    later(lab, 600)

    assert ([("succeeded", None)], {"c1": 500}) == (resolving(lab), bank.paid())


def test_its_intent_outlives_the_full_entry(lab: OneTask) -> None:
    """A late refund, a late message find it in the small one."""
    begin(lab, "pm_card_visa")
    lab.wait(36 * DAY_S)
    for _ in range(5):
        lab.look()
        lab.wait(HOUR_S)
    small = lab.entry("u1", "c1")

    assert (True, "pi_1", "ch_1") == (small["small"], small["intent"], small["intent_charge"])


def test_nothing_is_written_of_intents_where_there_is_none() -> None:
    """An ordinary charge has the bytes that it had."""
    with OneTask(AskedGateway()) as plain:
        (result,) = plain.send(charge(plain))
        row = plain.row("payments", "u1/c1")
    assert "intent_charge" not in result
    assert not {"intent", "intent_charge", "authentication"} & row.keys()
