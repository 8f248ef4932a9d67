"""What happened to others, tried on our webhooks: from Stripe's or PayPal's message to the books."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import pytest
from support.asked_gateway import AskedGateway
from support.audited import breaks
from support.one_task import OneTask
from support.webhook_payloads import (
    paypal_capture,
    paypal_event,
    paypal_refund,
    stripe_dispute,
    stripe_event,
    stripe_refund,
)

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Ambiguous, Owner
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.paypal import webhook as paypal
from streamsocial_billing.gateways.paypal.own_fields import custom_ids
from streamsocial_billing.gateways.provider_event import gateway_events, ids_by_charge, ids_of
from streamsocial_billing.gateways.stripe import webhook as stripe
from streamsocial_billing.settings import GATEWAY_EVENTS

UUIDS = "6f1c2f0e-2b7a-4a57-9d3c-0a1b2c3d4e5f", "0a1b2c3d-4e5f-4a57-9d3c-6f1c2f0e2b7a"
LONGEST = "u" * 64, "p" * 64


class Named(AskedGateway):
    """Stands for the gateway of this name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Shop:
    """One user with one charge of 5.00 EUR, told of by one gateway."""

    def __init__(self, lab: OneTask, gateway: Named, user: str = "u1", charge: str = "c1") -> None:
        self.lab, self.gateway, self.user, self.charge = lab, gateway, user, charge
        self._number = 0

    def pay(self, payment_id: str | None = None, action: str = "charge", amount: int = 500) -> dict[str, Any]:
        """Send the charge, or a refund of it; the result."""
        fields = {
            "payment_id": payment_id or self.charge, "user_id": self.user, "action": action,
            "amount_minor": amount, "currency": "EUR", "product": "gift", "payment_method": "pm_card_visa",
            "gateway": self.gateway.name, "refund_of": self.charge if action == "refund" else None,
        }  # fmt: skip
        (result,) = self.lab.send(PaymentEvent.from_mapping(fields, now_ms=self.lab.now_ms))
        return result

    def notify(self, message: Mapping[str, Any]) -> None:
        """What a receiver does with a signed message."""
        self._number += 1
        read = paypal.read if self.gateway.name == "paypal" else stripe.read
        mapped = read({**message, "id": f"evt_{self._number}"})
        assert mapped is not None
        of = ids_of(mapped)
        if of is None:  # its charge is asked for
            ref = gateway_key_of(self.user, "charge", self.charge)
            of = ids_by_charge(Owner(self.user, self.charge, ref))
        assert of is not None
        for event in gateway_events(self.gateway.name, mapped, of):
            self.lab.append(GATEWAY_EVENTS, event.user_id.encode(), event.to_bytes())
        self.lab.handle()

    def lost(self) -> int:
        """What is gone of the charge: by its entry, and by the user's money."""
        money = self.lab.row("charges", self.user)["money"]["EUR"]
        refunded: int = self.lab.entry(self.user, self.charge)["refunded_minor"]
        assert refunded == 500 - (money["charged_minor"] - money["refunded_minor"])
        assert [] == breaks(self.lab)
        assert [] == self.lab.dead_letters()
        return refunded


@pytest.fixture
def shop() -> Iterator[Shop]:
    """At Stripe."""
    gateway = Named("stripe")
    with OneTask(gateway) as lab:
        yield Shop(lab, gateway)


def dispute(kind: str, status: str, *amounts: int) -> dict[str, Any]:
    """A message about the dispute of the charge; its balance transactions, withdrawn ones negative."""
    rows = [{"amount": amount, "currency": "eur", "fee": 0} for amount in amounts]
    it = stripe_dispute(amount=500, status=status, charge="ch_scripted_1", balance_transactions=rows)
    return stripe_event(f"charge.dispute.{kind}", it)


def failed(ref: str, status: str = "failed", **more: object) -> dict[str, Any]:
    """A message about the refund r1."""
    words = {"user_id": "u1", "payment_id": "r1", "ref": gateway_key_of("u1", "refund", "r1")}
    it = stripe_refund(id=ref, amount=500, status=status, charge="ch_scripted_1", metadata=words, **more)
    return stripe_event("refund.updated", it)


def test_row_a_an_inquiry_moves_no_money(shop: Shop) -> None:
    """Opened, answered, closed; the refund that ends it is not refused."""
    shop.pay()
    shop.notify(dispute("created", "warning_needs_response"))
    before = shop.lost()
    refunded = shop.pay("r1", "refund")
    shop.notify(dispute("closed", "warning_closed"))

    assert (0, "succeeded", 500) == (before, refunded["status"], shop.lost())


SAID_OF_A_REFUND: list[tuple[str, dict[str, object]]] = [
    ("succeeded", {}), ("failed", {}), ("succeeded", {"failure_balance_transaction": "txn_9"}),
]  # fmt: skip


@pytest.mark.parametrize("order", list(permutations(SAID_OF_A_REFUND)))
def test_row_b_a_refund_that_fails_after_it_succeeded_gives_its_room_back(shop: Shop, order: Any) -> None:
    """In any order of the messages; the next refund is not refused."""
    shop.pay()
    ref = shop.pay("r1", "refund")["gateway_ref"]
    for status, more in (*order, *order):
        shop.notify(failed(ref, status, **more))
    after = shop.lost()
    again = shop.pay("r2", "refund")

    assert (0, "succeeded", 500) == (after, again["status"], shop.lost())
    assert 1 == sum(one["reason"] == "refund_failed" for one in shop.lab.results())


def test_row_b_at_paypal() -> None:
    """PAYMENT.REFUND.FAILED after the refund was COMPLETED."""
    gateway = Named("paypal")
    with OneTask(gateway) as lab:
        shop = Shop(lab, gateway)
        shop.pay()
        ref = shop.pay("r1", "refund")["gateway_ref"]
        key = gateway_key_of("u1", "refund", "r1")
        it = paypal_refund(
            id=ref, status="FAILED", invoice_id=key, custom_id=custom_ids(key, "u1", "r1")[0],
            amount={"currency_code": "EUR", "value": "5.00"},
        )  # fmt: skip
        shop.notify(paypal_event("PAYMENT.REFUND.FAILED", it))

        assert (0, "succeeded", 500) == (shop.lost(), shop.pay("r2", "refund")["status"], shop.lost())


HISTORY = [
    ("created", "needs_response", (-500,)),
    ("funds_withdrawn", "needs_response", (-500,)),
    ("funds_reinstated", "under_review", (-500, 200)),
    ("closed", "lost", (-500, 200)),
]


@pytest.mark.parametrize("order", list(permutations(range(len(HISTORY)))))
def test_row_h_a_dispute_that_was_reinstated_in_part_has_cost_the_rest(
    shop: Shop, order: tuple[int, ...]
) -> None:
    """5.00 withdrawn, 2.00 reinstated, closed as lost: 3.00, in any order of the messages."""
    shop.pay()
    for number in order:
        kind, status, amounts = HISTORY[number]
        shop.notify(dispute(kind, status, *amounts))

    assert 300 == shop.lost()


def test_row_i_an_inquiry_that_was_closed_and_then_took_money_is_booked(shop: Shop) -> None:
    """The same id, weeks later."""
    shop.pay()
    shop.notify(dispute("created", "warning_needs_response"))
    shop.notify(dispute("closed", "warning_closed"))
    before = shop.lost()
    shop.notify(dispute("funds_withdrawn", "needs_response", -500))

    assert (0, 500) == (before, shop.lost())


@pytest.mark.parametrize(("user", "charge"), [UUIDS, LONGEST])
def test_row_n_words_that_do_not_fit_settle_the_payment_that_they_are_about(user: str, charge: str) -> None:
    """A lost reply, then PayPal's message: one settling result."""
    gateway = Named("paypal")
    with OneTask(gateway) as lab:
        shop = Shop(lab, gateway, user, charge)
        gateway.script = [Ambiguous("reset", ask_only=True)] * 99
        opened = shop.pay()
        key = gateway_key_of(user, "charge", charge)
        it = paypal_capture(
            amount={"currency_code": "EUR", "value": "5.00"}, invoice_id=key,
            custom_id=custom_ids(key, user, charge)[0],
        )  # fmt: skip
        shop.notify(paypal_event("PAYMENT.CAPTURE.COMPLETED", it))

        assert len(it["custom_id"]) <= 127
        assert ("unknown", "succeeded", 0) == (
            opened["status"], lab.entry(user, charge)["status"], shop.lost(),
        )  # fmt: skip
