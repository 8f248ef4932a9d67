"""`resolve`: a person settles a parked payment, in virtual time."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from support import wishes
from support.asked_gateway import AskedGateway
from support.one_task import OneTask
from support.orders import answers, resolve, switch

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Absent, Ambiguous, Answer, Found, NotSent
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.settings import COMMANDS

FOUND = Found("ch_9", "succeeded", None, 500, "USD", "u1", "p1")


def payment(lab: OneTask, payment_id: str = "p1", **fields: Any) -> PaymentEvent:
    """A payment of the user u1 that is parked at its first call, made now."""
    return wishes.payment(lab, payment_id, **{"payment_method": "mismatch"} | fields)


def parked(lab: OneTask) -> dict[str, Any]:
    """A parked payment; its first result."""
    (result,) = lab.send(payment(lab, business_ref="sub:1"))
    assert "parked" == result["status"]
    return result


def test_succeeded_is_asked_for_then_settled(lab: OneTask, gateway: AskedGateway) -> None:
    """One final result with the first event's source, the money in the books, who did it in the entry."""
    first = parked(lab)
    gateway.found = [FOUND]
    answer = resolve(lab, "succeeded", "ch_9")
    (_, settled) = lab.results()

    assert ("done", "u1/p1 is settled as succeeded") == (answer["outcome"], answer["why"])
    names = "status", "resolves", "replayed", "gateway_ref", "source"
    assert ("succeeded", True, False, "ch_9", first["source"]) == tuple(settled[name] for name in names)
    by = lab.entry("u1", "p1")["settled_by"]
    assert ("ann", "the bank says so") == (by["actor"], by["reason"])
    assert {"USD": {"charged_minor": 500, "refunded_minor": 0}} == lab.row("charges", "u1")["money"]
    assert (None, 1, 1) == (lab.row("open_payments", "u1/p1"), len(gateway.questions), len(gateway.calls))


@pytest.mark.parametrize("status", ["declined", "failed"])
def test_what_did_not_happen_is_settled_by_the_persons_word(
    lab: OneTask, gateway: AskedGateway, status: str
) -> None:
    """No money moves; the business_ref is free again."""
    parked(lab)
    gateway.found = [Absent()]
    assert "done" == resolve(lab, status)["outcome"]
    assert (status, "resolved", True) == tuple(
        lab.results()[-1][name] for name in ("status", "reason", "resolves")
    )
    (again,) = lab.send(payment(lab, "p2", business_ref="sub:1", payment_method="pm_card_visa"))
    assert "succeeded" == again["status"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Absent(), "the gateway has nothing under our reference"),
        (Found("ch_9", "succeeded", None, 501, "USD", "u1"), "with other user, amount or currency"),
        (Found("ch_9", "succeeded", None, 500, "EUR", "u1"), "with other user, amount or currency"),
        (Found("ch_9", "succeeded", None, 500, "USD", "u2"), "with other user, amount or currency"),
        (Found("ch_8", "succeeded", None, 500, "USD", "u1"), "under our reference the gateway has ch_8"),
        (Found("ch_9", "pending", None, 500, "USD", "u1"), "the gateway has it as pending: ch_9"),
        (Found("ch_9", "declined", None, 500, "USD", "u1"), "the gateway has it as declined: ch_9"),
        (NotSent("unreachable"), "the gateway gave no answer: unreachable"),
        (Ambiguous("timeout"), "the gateway gave no answer: timeout"),
    ],
)
def test_succeeded_is_refused_unless_the_gateway_says_the_same(
    lab: OneTask, gateway: AskedGateway, answer: Answer, why: str
) -> None:
    """Refused with its reason, on record; nothing else changes."""
    parked(lab)
    gateway.found = [answer]
    before = lab.entry("u1", "p1"), lab.row("open_payments", "u1/p1"), len(lab.results())
    said = resolve(lab, "succeeded", "ch_9")

    assert "refused" == said["outcome"]
    assert why in said["why"]
    assert before == (lab.entry("u1", "p1"), lab.row("open_payments", "u1/p1"), len(lab.results()))


def test_succeeded_needs_the_gateways_id(lab: OneTask, gateway: AskedGateway) -> None:
    """A person must have seen it there."""
    parked(lab)
    gateway.found = [FOUND]
    assert "succeeded needs --gateway-ref, the gateway's id of it" == resolve(lab, "succeeded")["why"]


@pytest.mark.parametrize("status", ["declined", "failed"])
@pytest.mark.parametrize("there", ["succeeded", "pending"])
def test_what_the_gateway_has_is_not_settled_as_if_it_had_not(
    lab: OneTask, gateway: AskedGateway, status: str, there: str
) -> None:
    """It would be charged, and the user may pay again."""
    parked(lab)
    gateway.found = [Found("ch_9", there, None, 500, "USD", "u1", "p1")]
    said = resolve(lab, status)
    assert ("refused", f"the gateway has it as {there}: ch_9") == (said["outcome"], said["why"])
    assert "parked" == lab.entry("u1", "p1")["status"]


def test_only_a_parked_payment_is_settled_by_hand(lab: OneTask, gateway: AskedGateway) -> None:
    """Final statuses never change; an unknown one is tried on its own; what is not there is not made."""
    for name, way in (("p1", "pm_card_visa"), ("p2", "ambiguous")):
        lab.send(payment(lab, name, payment_method=way))
    why = [resolve(lab, "failed", payment_id=name)["why"] for name in ("p1", "p2", "p3")]
    assert [
        "it is succeeded: only a parked payment can be settled by hand",
        "it is unknown, and tried on its own until it is known or parked",
        "there is no such payment",
    ] == why
    assert ["refused"] * 3 == [one["outcome"] for one in answers(lab)]


def test_a_parked_refund_is_asked_for_as_a_refund_of_its_charge(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The same rules; its own reference, its own kind."""
    parked(lab)
    refund = {"action": "refund", "charge_ref": "ch_1", "refund_of": "p0", "business_ref": None}
    lab.put("payments", "u1/r1", lab.row("payments", "u1/p1") | refund)
    lab.put("open_payments", "u1/r1", lab.row("open_payments", "u1/p1"))
    gateway.found = [Found("re_9", "succeeded", None, 500, "USD", "u1")]
    assert "done" == resolve(lab, "succeeded", "re_9", payment_id="r1")["outcome"]
    (question,) = gateway.questions
    assert ("refund", "ch_1", "r1") == (question.action, question.charge_ref, question.payment_id)
    assert gateway_key_of("u1", "refund", "r1") == question.idempotency_key
    assert ("refund", "succeeded", True) == tuple(
        lab.results()[-1][name] for name in ("action", "status", "resolves")
    )


def test_an_order_given_twice_is_refused_the_second_time(lab: OneTask, gateway: AskedGateway) -> None:
    """Whoever got no answer may order again."""
    parked(lab)
    gateway.found = [Absent()]
    outcomes = [resolve(lab, "failed")["outcome"] for _ in range(2)]
    assert (["done", "refused"], 2) == (outcomes, len(lab.results()))


def test_an_order_whose_commit_was_lost_is_carried_out_once(lab: OneTask, gateway: AskedGateway) -> None:
    """The next task epoch gets it again: one answer, one result."""
    parked(lab)
    gateway.found = [FOUND]
    details = {"payment_id": "p1", "status": "succeeded", "gateway_ref": "ch_9"}
    lab.append(COMMANDS, b"u1", Command("resolve", "ann", "why", lab.now_ms, "u1", details).to_bytes())
    lab.deliver()
    lab.crash()
    lab.handle()
    assert (["done"], 2) == ([one["outcome"] for one in answers(lab)], len(lab.results()))


def test_a_payment_that_no_try_can_settle_need_not_be_parked_first(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Its account is gone: it cannot be asked for, so not be succeeded; the rest is the person's word."""
    lab.send(payment(lab, payment_method="ambiguous"))
    gateway.account = "acct_other"
    lab.wait(6)
    lab.trigger("u1", "p1")
    assert "gateway_account_changed" == lab.entry("u1", "p1")["reason"]
    said = resolve(lab, "succeeded", "ch_9")
    assert "its account is acct_scripted, the gateway now has acct_other" == said["why"]
    assert "done" == resolve(lab, "failed")["outcome"]


def test_a_payment_that_nobody_tries_any_more_is_settled_by_hand(lab: OneTask, gateway: AskedGateway) -> None:
    """While the gateway's account is another one nobody is triggered, so the entry says no reason."""
    lab.send(payment(lab, payment_method="ambiguous"))
    lab.look()
    gateway.account = "acct_other"
    for _ in range(3):
        lab.wait(600)
        lab.look()
    entry = lab.entry("u1", "p1")

    assert ("unknown", "outcome_unknown") == (entry["status"], entry["reason"])
    assert "done" == resolve(lab, "failed")["outcome"]


def test_a_payment_whose_account_is_back_is_not_settled_by_hand(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """It is tried again; what the last try found says nothing of that."""
    lab.send(payment(lab, payment_method="ambiguous"))
    gateway.account = "acct_other"
    lab.wait(6)
    lab.trigger("u1", "p1")
    assert "gateway_account_changed" == lab.entry("u1", "p1")["reason"]
    gateway.account = "acct_scripted"

    assert "tried on its own" in resolve(lab, "failed")["why"]


def test_a_stopped_gateway_is_asked_for_a_person(lab: OneTask, gateway: AskedGateway) -> None:
    """A stop keeps money from moving; a question moves none."""
    parked(lab)
    switch(lab, stop=True)
    gateway.found = [FOUND]
    assert "done" == resolve(lab, "succeeded", "ch_9")["outcome"]


@pytest.mark.parametrize(
    ("user_id", "details", "reason"),
    [
        ("u1", {"payment_id": "p1", "status": "parked"}, "wrong_type"),
        ("u1", {"payment_id": 7, "status": "failed"}, "wrong_type"),
        ("u1", {"payment_id": "p1", "status": "failed", "gateway_ref": 1}, "wrong_type"),
        ("u1", {"payment_id": "p1", "status": "failed", "gateway_ref": "4242424242424242"}, "bad_id"),
        ("u1", {"payment_id": "p1", "status": "failed", "gateway_ref": "a b"}, "bad_id"),
        (None, {"payment_id": "p1", "status": "failed"}, "wrong_type"),
        ("u2", {"payment_id": "p1", "status": "failed"}, "key_mismatch"),
    ],
)
def test_a_bad_order_is_refused(
    lab: OneTask, user_id: str | None, details: dict[str, Any], reason: str
) -> None:
    """What our command line cannot have written changes nothing; it can be read, so it is answered."""
    parked(lab)
    lab.append(COMMANDS, b"u1", Command("resolve", "ann", "why", lab.now_ms, user_id, details).to_bytes())
    lab.handle()
    assert [("refused", reason)] == [(one["outcome"], one["code"]) for one in answers(lab)]
    assert ("parked", []) == (lab.entry("u1", "p1")["status"], lab.dead_letters())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command_id": ""}, "missing_field"),
        ({"command_id": None}, "wrong_type"),
        ({"command_id": "4242424242424242"}, "card_number"),
        ({"user_id": "4242424242424242"}, "card_number"),
        ({"user_id": "a b"}, "bad_id"),
        ({"reason": "x" * 501}, "wrong_type"),
        ({"at": "now"}, "wrong_type"),
    ],
)
def test_an_order_that_cannot_be_answered_is_a_dead_letter(
    lab: OneTask, changes: dict[str, Any], reason: str
) -> None:
    """Nobody could find its answer, or the answer would spread a card number."""
    details = {"payment_id": "p1", "status": "failed", "gateway_ref": None}
    good = orjson.loads(Command("resolve", "ann", "why", lab.now_ms, "u1", details).to_bytes())
    lab.append(COMMANDS, b"u1", orjson.dumps(good | changes))
    lab.append(COMMANDS, b"u1", b"no JSON")
    lab.handle()
    assert [reason, "not_json"] == [letter["reason"] for letter in lab.dead_letters()]
    assert [] == answers(lab)


def test_an_order_that_no_release_knows_is_refused(lab: OneTask) -> None:
    """A newer command line, an older worker: the answer says it at once."""
    lab.command("refund-all")
    (answer,) = answers(lab)
    assert ("refused", "unknown_command") == (answer["outcome"], answer["code"])
