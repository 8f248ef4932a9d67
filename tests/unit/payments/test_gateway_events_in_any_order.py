"""Messages of a gateway in any order, repeated, with crashes between.

Operations: the charge's event, a refund's event, each perhaps twice; every message about them, and about a
refund and a dispute made at the gateway, at least once; the worker dies now and then.
Checked properties, in the end:
1. each event's payment has one first result, at most one settling one, the outcome that the gateway tells;
2. the money is what it is in any other order: charged less refunded, by the user's state, by the results;
3. the charge's entry says how much of it went back, nothing is reserved, nothing waits;
4. the live audit finds nothing.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.asked_gateway import HOUR_S, AskedGateway
from support.audited import breaks
from support.gateway_said import foreign, ours
from support.one_task import OneTask

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Ambiguous, ChargeRequest, Outcome
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.settings import GATEWAY_EVENTS, PAYMENTS


class Silent(AskedGateway):
    """Nobody hears what came of a charge; refunds are answered."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Lost, for good."""
        return Ambiguous("reset", ask_only=True)


Item = PaymentEvent | GatewayEvent


def payment(payment_id: str, action: str, amount: int) -> PaymentEvent:
    """An event of the user u1."""
    fields: dict[str, Any] = {
        "payment_id": payment_id, "user_id": "u1", "action": action, "amount_minor": amount,
        "product": "gift", "currency": "USD", "payment_method": "pm_card_visa", "gateway": "simulated",
        "refund_of": "c1" if action == "refund" else None,
    }  # fmt: skip
    return PaymentEvent.from_mapping(fields, now_ms=1_764_600_000_000)


CHARGE, REFUND = payment("c1", "charge", 500), payment("r1", "refund", 200)
PENDING = ours("charge", "pending", "c1", "ch_1")
PAID: list[Item] = [CHARGE, REFUND, PENDING, ours("charge", "succeeded", "c1", "ch_1"),
        ours("refund", "pending", "r1", "re_scripted_1", amount_minor=200),
        foreign("refund", "pending", "re_x", amount_minor=100),
        foreign("refund", "succeeded", "re_x", amount_minor=100)]  # fmt: skip
TOLD_OF_REFUND: list[Item] = [*PAID, ours("refund", "succeeded", "r1", "re_scripted_1", amount_minor=200)]
DISPUTED: list[Item] = [*PAID, foreign("dispute", "succeeded", "dp_1", amount_minor=150),
            foreign("dispute", "declined", "dp_1", amount_minor=150)]  # fmt: skip
FAILED: list[Item] = [*TOLD_OF_REFUND, foreign("refund", "declined", "re_x", amount_minor=100),
          ours("refund", "declined", "r1", "re_scripted_1", amount_minor=200)]  # fmt: skip
DECLINED: list[Item] = [CHARGE, REFUND, PENDING, ours("charge", "declined", "c1", "ch_1", reason="lost_card")]


def orders(items: list[Item]) -> st.SearchStrategy[list[Item]]:
    """Every item once, some again (as they were, or as another message), in any order."""
    again = st.lists(st.sampled_from(items), max_size=4)
    fresh = st.lists(st.sampled_from(items).map(_as_another), max_size=3)
    return st.tuples(again, fresh).flatmap(lambda more: st.permutations([*items, *more[0], *more[1]]))


def _as_another(item: Item) -> Item:
    return item if isinstance(item, PaymentEvent) else replace(item, event_id=f"{item.event_id}_again")


def run(items: list[Item], crashes: set[int], check: Callable[[OneTask], None]) -> None:
    """Everything in this order; the worker dies before it handles the items of these numbers."""
    gateway = Silent()
    with OneTask(gateway) as lab:
        for number, item in enumerate(items):
            topic = PAYMENTS if isinstance(item, PaymentEvent) else GATEWAY_EVENTS
            lab.append(topic, b"u1", item.to_bytes())
            if number in crashes:
                lab.deliver()
                lab.crash()
            lab.handle()
            if number % 3 == 2:
                lab.look()
        for _ in range(3):
            lab.wait(HOUR_S)
            lab.look()
        assert [] == lab.dead_letters()
        check(lab)
        assert [] == breaks(lab)


def each_once(lab: OneTask, expected: dict[str, str]) -> None:
    """Property 1."""
    results = [one for one in lab.results() if one["origin"] == "event"]
    first = Counter(one["payment_id"] for one in results if not one["resolves"] and not one["replayed"])
    settled = Counter(one["payment_id"] for one in results if one["resolves"])
    assert dict.fromkeys(expected, 1) == dict(first)
    assert max(settled.values(), default=1) == 1
    assert expected == {name: lab.entry("u1", name)["status"] for name in expected}


def net(lab: OneTask) -> int:
    """Property 2."""
    moved = [one for one in lab.results() if one["status"] == "succeeded" and not one["replayed"]]
    by_results: int = sum(
        one["amount_minor"] if one["action"] == "charge" else -one["amount_minor"] for one in moved
    )
    money = lab.row("charges", "u1")["money"].get("USD", {"charged_minor": 0, "refunded_minor": 0})
    assert by_results == money["charged_minor"] - money["refunded_minor"]
    return by_results


def nothing_waits(lab: OneTask) -> int:
    """Property 3; what went back of the charge."""
    charge = lab.entry("u1", "c1")
    assert (0, None, None) == (
        charge["reserved_minor"], lab.row("awaited_charges", "u1/c1"), lab.row("open_payments", "u1/c1"),
    )  # fmt: skip
    refunded: int = charge["refunded_minor"]
    return refunded


crashes = st.sets(st.integers(0, 12), max_size=2)


@pytest.mark.parametrize("items", [PAID, TOLD_OF_REFUND, DISPUTED], ids=["paid", "refund_told", "disputed"])
def test_money_that_moved_is_the_same_in_any_order(items: list[Item]) -> None:
    """Paid 500, 200 refunded by us, 100 at the gateway; a dispute over 150 that was won changes nothing."""

    def check(lab: OneTask) -> None:
        each_once(lab, {"c1": "succeeded", "r1": "succeeded"})
        assert (200, 300) == (net(lab), nothing_waits(lab))

    @settings(max_examples=60, deadline=None)
    @given(orders(items), crashes)
    def any_order(order: list[Item], dies: set[int]) -> None:
        run(order, dies, check)

    any_order()


@settings(max_examples=80, deadline=None)
@given(orders(FAILED), crashes)
def test_refunds_that_failed_gave_nothing_back_in_any_order(order: list[Item], dies: set[int]) -> None:
    """Paid 500; a refund of ours and one at the gateway succeeded, then failed: told in any order."""

    def check(lab: OneTask) -> None:
        each_once(lab, {"c1": "succeeded", "r1": lab.entry("u1", "r1")["status"]})
        failures = Counter(one["gateway_ref"] for one in lab.results() if one["reason"] == "refund_failed")
        assert max(failures.values(), default=1) == 1
        assert (500, 0) == (net(lab), nothing_waits(lab))

    run(order, dies, check)


@settings(max_examples=40, deadline=None)
@given(orders(DECLINED), crashes)
def test_money_that_did_not_move_is_none_in_any_order(order: list[Item], dies: set[int]) -> None:
    """Declined; so there was nothing to refund."""

    def check(lab: OneTask) -> None:
        each_once(lab, {"c1": "declined", "r1": "rejected"})
        assert (0, 0) == (net(lab), nothing_waits(lab))

    run(order, dies, check)
