"""A refund that fails after it succeeded, row by row, through the whole application on one task."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from support import wishes
from support.asked_gateway import HOUR_S, AskedGateway
from support.audited import breaks
from support.gateway_said import foreign, ours, say
from support.one_task import OneTask
from support.wishes import charge

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Ambiguous, Outcome
from streamsocial_billing.payments.gateway_event import REPORTED_EFFECTS
from streamsocial_billing.payments.reported_by_gateway import external_id
from streamsocial_billing.payments.retention import SMALL_RETENTION_MS

LOST: list[Outcome | Exception] = [Ambiguous("reset", ask_only=True)] * 99
RETAINED_S = DEDUP_RETENTION_MS / 1000 + HOUR_S


@pytest.fixture
def lab(gateway: AskedGateway) -> Iterator[OneTask]:
    with OneTask(gateway) as lab:
        yield lab
        assert [] == breaks(lab)
        assert [] == lab.dead_letters()


def refund(lab: OneTask, payment_id: str = "r1", amount: int = 500, charge: str = "c1") -> PaymentEvent:
    """A refund of the whole charge c1."""
    return wishes.refund(lab, payment_id, amount, refund_of=charge)


def fails(ref: str = "re_scripted_1", amount: int = 500, **fields: Any) -> Any:
    """The gateway tells that the refund r1 failed."""
    return ours("refund", "declined", "r1", ref, amount_minor=amount, reason="lost_card", **fields)


def money(lab: OneTask) -> tuple[int, int]:
    """Charged, refunded by the user's state."""
    of = lab.row("charges", "u1")["money"].get("USD", {"charged_minor": 0, "refunded_minor": 0})
    return of["charged_minor"], of["refunded_minor"]


def cap(lab: OneTask, charge: str = "c1") -> tuple[int, int]:
    """What the charge's entry says: refunded, reserved."""
    entry = lab.entry("u1", charge)
    return entry["refunded_minor"], entry["reserved_minor"]


def counted(effect: str) -> float:
    """The metric."""
    value: float = REPORTED_EFFECTS.labels("simulated", effect)._value.get()  # noqa: SLF001
    return value


# ---- a refund of ours


def test_row_a_refund_that_fails_after_it_succeeded_is_an_outcome_of_its_own(lab: OneTask) -> None:
    """One external result with its metric; the money, the charge's room are what they were before it."""
    _, refunded = lab.send(charge(lab), refund(lab))
    gone = cap(lab), money(lab)
    (result,) = say(lab, fails())

    failed_id = external_id("simulated", refunded["gateway_ref"], "failed")
    expected = {
        "payment_id": failed_id, "action": "charge", "status": "succeeded", "reason": "refund_failed",
        "replayed": False, "resolves": False, "origin": "external", "source": None, "refund_of": "c1",
        "gateway_ref": refunded["gateway_ref"], "amount_minor": 500, "currency": "USD", "attempt": 0,
        "product": "gift",
    }  # fmt: skip
    assert expected == {name: result[name] for name in expected}
    assert failed_id == lab.metrics()[-1]["payment_id"]
    assert ((500, 0), (500, 500)) == gone
    assert ((0, 0), (1000, 500)) == (cap(lab), money(lab))
    entry = lab.entry("u1", "r1")
    assert ("succeeded", failed_id) == (entry["status"], entry["returned_by"])


def test_an_id_of_a_failed_refund_is_pinned() -> None:
    """Another id for the same refund would bring its money back twice."""
    assert "x1_6cccff48a66303dcd848b30bcf3ca93c300c4ef7" == external_id("simulated", "re_x", "failed")


def test_row_the_next_refund_of_that_charge_works(lab: OneTask) -> None:
    """It has room again; what came back cannot be refunded itself."""
    lab.send(charge(lab), refund(lab))
    (failed,) = say(lab, fails())
    (again,) = lab.send(refund(lab, "r2"))
    (of_failed,) = lab.send(refund(lab, "r3", 1, charge=failed["payment_id"]))

    assert ("succeeded", "rejected") == (again["status"], of_failed["status"])
    assert ((500, 0), (1000, 1000)) == (cap(lab), money(lab))


@pytest.mark.parametrize("again", ["webhook", "reconciliation"])
def test_row_a_failure_counts_once_whoever_tells_of_it(lab: OneTask, again: str) -> None:
    """Under whatever event_id, however late: webhook, list and repair are one."""
    lab.send(charge(lab), refund(lab))
    (failed,) = say(lab, fails())
    results = say(lab, fails(via=again, charge_id="c1"))
    lab.wait(RETAINED_S)
    lab.look()
    results += say(lab, fails(via=again))
    results += say(lab, ours("refund", "succeeded", "r1", "re_scripted_1"))

    assert ([], (0, 0), (1000, 500)) == (results, cap(lab), money(lab))
    assert failed["payment_id"] == lab.entry("u1", "r1")["returned_by"]


def test_row_a_refund_that_is_small_already_can_still_fail(lab: OneTask) -> None:
    """Five weeks later, and the charge is small as well."""
    lab.send(charge(lab), refund(lab))
    lab.wait(RETAINED_S)
    lab.look()
    (result,) = say(lab, fails())

    assert ("refund_failed", "c1", "gift") == (result["reason"], result["refund_of"], result["product"])
    assert ((0, 0), (1000, 500)) == (cap(lab), money(lab))


def test_a_refund_that_an_earlier_release_made_small_fails_with_the_charge_that_a_repair_names(
    lab: OneTask,
) -> None:
    """Its entry does not say its charge: a webhook alone needs a person, the repair books it."""
    lab.send(charge(lab), refund(lab))
    lab.wait(RETAINED_S)
    lab.look()
    stored = lab.row("payments", "u1/r1")
    del stored["refund_of"]
    lab.put("payments", "u1/r1", stored)
    before = counted("contradicts")
    nothing = say(lab, fails())
    (result,) = say(lab, fails(via="reconciliation", charge_id="c1"))

    assert ([], 1, "refund_failed") == (nothing, counted("contradicts") - before, result["reason"])
    assert (0, 0) == cap(lab)


def test_row_a_failure_that_is_told_before_the_refund_s_event_leaves_nothing_to_refund(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """A delivery lost in a crash had called: nothing moved for good, whatever else was told, in any order."""
    lab.send(charge(lab))
    calls = len(gateway.calls)
    messages = [fails("re_9", 200), ours("refund", "succeeded", "r1", "re_9", amount_minor=200)]
    say(lab, *messages)
    say(lab, *(replace(one, event_id=f"{one.event_id}_again") for one in reversed(messages)))
    (adopted,) = lab.send(refund(lab, "r1", 200))

    assert ("declined", "lost_card", calls) == (adopted["status"], adopted["reason"], len(gateway.calls))
    assert ((0, 0), (500, 0)) == (cap(lab), money(lab))


@pytest.mark.parametrize("first", ["succeeded", "declined"])
def test_row_an_open_refund_that_succeeds_and_fails_in_any_order_gives_nothing_back(
    lab: OneTask, gateway: AskedGateway, first: str
) -> None:
    """Older news of a success is no contradiction to its failure."""
    lab.send(charge(lab))
    gateway.script = LOST.copy()
    lab.send(refund(lab))
    gateway.script = []
    before = counted("contradicts")
    messages = {"declined": fails("re_9"), "succeeded": ours("refund", "succeeded", "r1", "re_9")}
    say(lab, messages.pop(first))
    say(lab, *messages.values())
    charged, refunded = money(lab)

    assert (0, (0, 0), 500) == (counted("contradicts") - before, cap(lab), charged - refunded)
    assert first == lab.entry("u1", "r1")["status"]


def test_row_the_failure_of_another_refund_under_our_reference_changes_nothing(lab: OneTask) -> None:
    """A try that failed beside the one that succeeded: the money went back once."""
    lab.send(charge(lab), refund(lab))
    results = say(lab, fails("re_other"))

    assert ([], (500, 0), (500, 500)) == (results, cap(lab), money(lab))


def test_row_a_failure_of_another_amount_needs_a_person(lab: OneTask) -> None:
    """Nothing is booked that nobody understands."""
    lab.send(charge(lab), refund(lab))
    before = counted("contradicts")
    results = say(lab, fails(amount=499))

    assert ([], (500, 0), 1) == (results, cap(lab), counted("contradicts") - before)


def test_a_charge_that_is_told_as_declined_after_it_succeeded_stays(lab: OneTask) -> None:
    """Only a refund fails afterwards; a charge's money comes back as a refund or a dispute."""
    (paid,) = lab.send(charge(lab))
    results = say(lab, ours("charge", "declined", "c1", paid["gateway_ref"]))

    assert ([], (500, 0)) == (results, money(lab))


def test_a_refund_that_failed_before_its_charge_was_known_takes_nothing_of_it(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The gateway told of the refund and of its failure first; the charge's event comes last."""
    say(lab, ours("refund", "succeeded", "r1", "re_9"))
    lab.send(refund(lab))
    say(lab, fails("re_9"))
    lab.send(charge(lab))
    charged, refunded = money(lab)

    assert ((0, 0), 500) == (cap(lab), charged - refunded)
    assert None is lab.row("awaited_charges", "u1/c1")


def test_a_crash_amid_a_failure_leaves_nothing_half_done(lab: OneTask) -> None:
    """Money, room, result are one unit."""
    lab.send(charge(lab), refund(lab))
    lab.append("gateway-events", b"u1", fails().to_bytes())
    lab.deliver()
    lab.crash()
    lab.handle()

    assert ((0, 0), (1000, 500)) == (cap(lab), money(lab))


# ---- a refund made at the gateway


@pytest.mark.parametrize("order", [("succeeded", "declined"), ("declined", "succeeded")])
def test_row_a_refund_made_at_the_gateway_fails_in_any_order(lab: OneTask, order: tuple[str, str]) -> None:
    """Nothing went back for good; told once more, nothing changes."""
    lab.send(charge(lab))
    for status in (*order, *order):
        say(lab, foreign("refund", status, "re_x", amount_minor=300))
    charged, refunded = money(lab)

    assert ((0, 0), 500) == (cap(lab), charged - refunded)
    assert "succeeded" == lab.send(refund(lab))[0]["status"]


# ---- the business_ref


def test_row_a_charge_whose_refund_came_back_holds_its_business_ref_again(lab: OneTask) -> None:
    """The user has paid for it: a second charge for it would be one too many."""
    lab.send(charge(lab, business_ref="sub:1"), refund(lab))
    say(lab, fails())
    (second,) = lab.send(charge(lab, "c2", business_ref="sub:1"))

    assert ("duplicate_business_ref", "c1") == (second["reason"], second["conflicts_with"])


@pytest.mark.parametrize("how", ["refund_failed", "dispute_won"])
def test_row_two_charges_that_hold_one_business_ref_are_said_aloud(
    lab: OneTask, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody paid again meanwhile: both stand, and the business_ref is free only when both are."""
    lab.send(charge(lab, business_ref="sub:1"))
    if how == "refund_failed":
        lab.send(refund(lab))
        ends = fails()
    else:
        say(lab, foreign("dispute", "succeeded", "dp_1"))
        ends = foreign("dispute", "declined", "dp_1")
    (second,) = lab.send(charge(lab, "c2", business_ref="sub:1"))
    say(lab, ends)
    held = lab.send(charge(lab, "c3", business_ref="sub:1"))[0]["conflicts_with"]
    lab.send(refund(lab, "r2", charge="c2"))
    still = lab.send(charge(lab, "c4", business_ref="sub:1"))[0]["conflicts_with"]
    lab.send(refund(lab, "r3"))
    (free,) = lab.send(charge(lab, "c5", business_ref="sub:1"))

    assert ("succeeded", "c2", "c1", "succeeded") == (second["status"], held, still, free["status"])
    assert "sub:1 was paid by c1, whose refund came back, and by c2 since" in caplog.text


def test_the_row_of_a_business_ref_ends_with_the_last_charge_that_it_names(lab: OneTask) -> None:
    """Each charge takes itself out when its retention is over."""
    lab.send(charge(lab, business_ref="sub:1"), refund(lab))
    lab.send(charge(lab, "c2", business_ref="sub:1"))
    say(lab, fails())
    named = lab.row("business_refs", "u1/sub:1")
    for seconds in (RETAINED_S, SMALL_RETENTION_MS / 1000 + HOUR_S):
        lab.wait(seconds)
        lab.look()

    assert {"payment_id": "c2", "also": ["c1"]} == named
    assert None is lab.row("business_refs", "u1/sub:1")
