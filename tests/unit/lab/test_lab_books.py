"""The lab's books: what a run did to the money, from what was sent, charged, reported."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.books import Harm, compare
from lab.plan import Payment, plan
from streamsocial_billing.audit.books import LedgerCharge

GIFT = Payment("p1", "ada", "gift", 2300, "pm_card_visa")
DECLINED = Payment("p2", "ada", "gift", 2300, "pm_card_declined")
NONE = Harm(0, 0)


def charge(payment: Payment) -> LedgerCharge:
    """A charge in the gateway's list."""
    about, status = f"{payment.user_id}/{payment.payment_id}", "succeeded" if payment.is_due else "failed"
    return LedgerCharge("ch_1", about, None, status, payment.amount_minor, "EUR")


def result(payment: Payment, status: str, **more: Any) -> dict[str, Any]:
    """A record on the topic of results."""
    return {"payment_id": payment.payment_id, "status": status, "amount_minor": payment.amount_minor} | more


def test_what_is_charged_and_reported_once_is_clean() -> None:
    """No harm: due, taken and reported are the same."""
    books = compare(
        [GIFT, DECLINED], [GIFT, DECLINED], [charge(GIFT), charge(DECLINED)],
        [result(GIFT, "succeeded"), result(DECLINED, "declined")],
    )  # fmt: skip
    assert books.is_clean
    assert (2300, 2300, 2300) == (books.due, books.taken, books.reported)


def test_a_payment_without_a_charge_is_lost() -> None:
    """Its money was due and never came."""
    books = compare([GIFT], [GIFT], [], [])
    assert (Harm(1, 2300), Harm(1, 2300), NONE) == (books.lost, books.unanswered, books.charged_twice)
    assert not books.is_clean


def test_a_second_charge_is_the_consumers_unless_the_sender_sent_twice() -> None:
    """The page says whose fault it is."""
    twice = [charge(GIFT), charge(GIFT)]
    by_consumer = compare([GIFT], [GIFT], twice, [result(GIFT, "succeeded")])
    assert (Harm(1, 2300), NONE) == (by_consumer.twice_by_handling, by_consumer.twice_by_sending)
    by_sender = compare([GIFT], [GIFT, GIFT], twice, [result(GIFT, "succeeded")])
    assert (NONE, Harm(1, 2300)) == (by_sender.twice_by_handling, by_sender.twice_by_sending)
    both = compare([GIFT], [GIFT, GIFT], [*twice, charge(GIFT)], [result(GIFT, "succeeded")])
    assert (Harm(1, 2300), Harm(1, 2300)) == (both.twice_by_handling, both.twice_by_sending)


def test_a_charge_that_the_results_deny_is_harm() -> None:
    """The customer pays, the books say `failed`."""
    books = compare([GIFT], [GIFT], [charge(GIFT)], [result(GIFT, "failed")])
    assert (Harm(1, 2300), -2300) == (books.denied, books.misreported)


def test_a_replay_is_no_second_report() -> None:
    """A re-sent payment's stored answer is marked; nobody adds it up."""
    answers = [result(GIFT, "succeeded", replayed=False), result(GIFT, "succeeded", replayed=True)]
    assert compare([GIFT], [GIFT, GIFT], [charge(GIFT)], answers).is_clean
    unmarked = compare([GIFT], [GIFT, GIFT], [charge(GIFT)], [result(GIFT, "succeeded")] * 2)
    assert (Harm(1, 2300), 2300) == (unmarked.reported_twice, unmarked.misreported)


@settings(deadline=None)
@given(st.integers(0, 1000), st.data())
def test_money_adds_up(seed: int, data: st.DataObject) -> None:
    """taken = due - lost + charged twice, whatever happened: no cent is counted twice or forgotten."""
    made = plan(seed, 300)
    times = data.draw(st.lists(st.integers(0, 3), min_size=300, max_size=300))
    charges = [charge(one) for one, count in zip(made.payments, times, strict=True) for _ in range(count)]
    books = compare(made.payments, made.events, charges, [])
    assert books.taken == books.due - books.lost.minor + books.charged_twice.minor
