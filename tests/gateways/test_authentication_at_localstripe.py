"""A payment whose bank wants its customer, in the whole application, at a Stripe that somebody else wrote.

The application runs in virtual time on one task; its calls go through the real adapter, over HTTP, to
localstripe behind its proxy. What counts is localstripe's own list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from support.audited import breaks
from support.called_for_real import CalledForReal
from support.local_stripe import ASKS, GOOD, REFUSED, LocalStripe
from support.loopback_server import Asked, LoopbackServer, Reply
from support.one_task import OneTask
from support.stripe_proxy import ACCOUNT, StripeProxy
from support.until import until
from support.wishes import payment

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.gateways.provider_event import gateway_events, ids_of
from streamsocial_billing.gateways.stripe import webhook
from streamsocial_billing.gateways.stripe.client import StripeGateway
from streamsocial_billing.settings import GATEWAY_EVENTS

DAY_S = 86_400
PATIENCE_S = 3 * DAY_S + 7 * 3600
SECRET = "whsec_local"


class Shop:
    """The application, its Stripe, a customer with a card whose bank asks for them."""

    def __init__(self, stripe: LocalStripe, proxy: StripeProxy, lab: OneTask) -> None:
        self.stripe, self.proxy, self.lab = stripe, proxy, lab
        self.method = stripe.saved(ASKS)

    def wish(self, payment_id: str = "p1", **fields: Any) -> PaymentEvent:
        """A gift over the saved card."""
        return payment(self.lab, payment_id, **{"gateway": "stripe", "payment_method": self.method} | fields)

    def ask(self, payment_id: str = "p1", **fields: Any) -> str:
        """Send it; the id of the intent that waits now."""
        (result,) = self.lab.send(self.wish(payment_id, **fields))
        said = (result["status"], result["reason"], result["resolves"])
        assert ("unknown", "authentication_required", False) == said
        entry = self.lab.entry("u1", payment_id)
        assert str(entry["intent"]).startswith("pi_")
        return str(entry["intent"])

    def confirm(self, intent: str) -> int:
        """The platform brings the customer back to the same intent; Stripe's status."""
        self.proxy.come_back(intent, success=True)
        return int(self.stripe.rows("payment_intents")[intent]["status"] == "succeeded")

    def finals(self, payment_id: str = "p1") -> list[tuple[str, str | None, bool]]:
        """Final results of a payment that are no replays."""
        return [
            (one["status"], one["reason"], one["resolves"]) for one in self.lab.results()
            if one["payment_id"] == payment_id and not one["replayed"] and one["status"] != "unknown"
        ]  # fmt: skip

    def look_for(self, seconds: float) -> None:
        """So much time passes; timers look now and then."""
        for _ in range(14):
            self.lab.wait(seconds / 14)
            for _ in range(3):  # what a look brings may be due at once
                self.lab.look()


@pytest.fixture(scope="module")
def stripe() -> Iterator[LocalStripe]:
    with LocalStripe() as server:
        yield server


@pytest.fixture
def shop(stripe: LocalStripe) -> Iterator[Shop]:
    with StripeProxy(stripe.url) as proxy:
        gateway = StripeGateway("sk_test_local", proxy.url, account=ACCOUNT)
        with CalledForReal(gateway) as real, OneTask(real) as lab:
            yield Shop(stripe, proxy, lab)
            assert [] == breaks(lab)
            assert [] == lab.dead_letters()
            written = [one for done in lab.kafka.transactions for one in done.records]
            assert written
            assert not any(b"_secret_" in (one.value or b"") for one in written)


def charged(shop: Shop, intent: str) -> list[str]:
    """The charges of an intent that took money, by localstripe's own list."""
    rows = shop.stripe.rows("charges").values()
    return [row["id"] for row in rows if row["payment_intent"] == intent and row["status"] == "succeeded"]


def test_a_saved_card_is_charged_once(shop: Shop) -> None:
    """Off-session, in one call; the intent is the reference; the event again is a replay."""
    event = shop.wish(payment_method=shop.stripe.saved(GOOD))
    (result,) = shop.lab.send(event)
    (again,) = shop.lab.send(event)
    intent = result["gateway_ref"]
    assert ("succeeded", True, "succeeded") == (result["status"], again["replayed"], again["status"])
    assert intent.startswith("pi_")
    assert 1 == len(charged(shop, intent))
    assert 1 == Counter(shop.proxy.asked)["POST /v1/payment_intents"]


@pytest.mark.parametrize("first", ["question", "resent"])
def test_a_customer_who_confirms_is_charged_once(shop: Shop, first: str) -> None:
    """Settled once, with `resolves: true`, whichever asks first; the same key is called no more."""
    intent = shop.ask()
    assert [] == charged(shop, intent)
    assert 1 == shop.confirm(intent)
    if first == "resent":
        shop.lab.send(shop.wish())
    shop.look_for(DAY_S)
    shop.lab.send(shop.wish())
    assert [("succeeded", None, True)] == shop.finals()
    assert 1 == len(charged(shop, intent))
    assert 1 == Counter(shop.proxy.asked)["POST /v1/payment_intents"]


def test_a_webhook_settles_it_before_anybody_asks(shop: Shop) -> None:
    """Signed by localstripe, of another API version; what is asked afterwards changes nothing."""
    told: list[Asked] = []

    def heard(asked: Asked) -> Reply:
        told.append(asked)
        return 200, b"{}"

    with LoopbackServer(heard) as platform:
        shop.stripe.tell(platform.url, SECRET)
        intent = shop.ask()
        assert 1 == shop.confirm(intent)
        # one of a refused charge names the intent, too, and comes before it
        until(lambda: "payment_intent.succeeded" in told_of(told, intent), "its webhook")
    for asked in list(told):
        body = asked.body or b""
        message = orjson.loads(body)
        assert webhook.signed(body, asked.headers["Stripe-Signature"], [SECRET], message["created"])
        if message["data"]["object"]["id"] == intent:
            hear(shop.lab, message)
    assert [("succeeded", None, True)] == shop.finals()
    shop.look_for(DAY_S)
    assert [("succeeded", None, True)] == shop.finals()
    assert 1 == len(charged(shop, intent))


def told_of(told: list[Asked], intent: str) -> list[str]:
    """Which kinds of messages about the intent have come."""
    messages = [orjson.loads(one.body or b"{}") for one in list(told)]
    return [one["type"] for one in messages if one["data"]["object"]["id"] == intent]


def test_an_abandoned_payment_is_cancelled_then_declined(shop: Shop) -> None:
    """Not before its days are over; then the intent is canceled, and nobody can confirm it any more."""
    intent = shop.ask()
    shop.look_for(2 * DAY_S)
    assert [] == shop.finals()
    shop.look_for(PATIENCE_S - 2 * DAY_S)
    assert [("declined", "authentication_required", True)] == shop.finals()
    assert "canceled" == shop.stripe.rows("payment_intents")[intent]["status"]
    assert 0 == shop.confirm(intent)
    assert [] == charged(shop, intent)


@pytest.mark.parametrize("first", ["customer", "cancellation"])
def test_a_customer_who_confirms_while_we_cancel(shop: Shop, first: str) -> None:
    """One wins: charged once and succeeded, or never charged and declined."""
    intent, won = shop.ask(), []

    def race(request: str) -> None:
        if request.endswith("/cancel") and first == "customer":
            won.append(shop.confirm(intent))

    shop.proxy.gate = race
    shop.look_for(PATIENCE_S)
    if first == "cancellation":
        won.append(shop.confirm(intent))
    assert [first == "customer"] == [bool(one) for one in won]
    expected = ("succeeded", None, True) if first == "customer" else (
        "declined", "authentication_required", True)  # fmt: skip
    assert [expected] == shop.finals()
    assert (first == "customer") == len(charged(shop, intent))


def test_while_it_waits_its_business_ref_is_held(shop: Shop) -> None:
    """Another payment for the same thing is refused; once it is cancelled, it is free again."""
    shop.ask(business_ref="sub:1")
    (other,) = shop.lab.send(shop.wish("p2", business_ref="sub:1", payment_method=shop.stripe.saved(GOOD)))
    assert ("rejected", "duplicate_business_ref") == (other["status"], other["reason"])
    shop.look_for(PATIENCE_S)
    (third,) = shop.lab.send(shop.wish("p3", business_ref="sub:1", payment_method=shop.stripe.saved(GOOD)))
    assert "succeeded" == third["status"]


@pytest.mark.parametrize("confirms", ["before", "during", "never"])
def test_a_dunning_try_meanwhile_charges_at_most_once(shop: Shop, confirms: str) -> None:
    """The intent is canceled before the next try; who confirmed it first has paid, and none goes out."""
    shop.lab.command(
        "subscribe", subscription_id="s1", amount_minor=999, currency="EUR", gateway="stripe",
        payment_method=shop.method,
    )  # fmt: skip
    subscription = shop.lab.row("subscriptions", "u1/s1")
    assert "past_due" == subscription["state"]
    first = shop.lab.entry("u1", subscription["pending"]["payment_id"])["intent"]

    def race(request: str) -> None:
        if request.endswith(f"{first}/cancel"):
            shop.proxy.gate = lambda _: None
            shop.confirm(first)

    if confirms == "before":
        shop.confirm(first)
    elif confirms == "during":
        shop.proxy.gate = race
    shop.look_for(2 * DAY_S)
    rows = shop.stripe.rows("charges").values()
    customer = shop.method.partition("/")[0]
    paid = [row for row in rows if row["customer"] == customer and row["status"] == "succeeded"]
    made = Counter(shop.proxy.asked)["POST /v1/payment_intents"]
    state = shop.lab.row("subscriptions", "u1/s1")["state"]
    if confirms == "never":
        assert ([], "past_due", 2) == (paid, state, made)
        assert "canceled" == shop.stripe.rows("payment_intents")[first]["status"]
    else:
        assert (1, "active", 1) == (len(paid), state, made)


def test_a_confirmed_payment_is_refunded_by_its_intent(shop: Shop) -> None:
    """The refund finds the intent; localstripe has it on the one good charge."""
    intent = shop.ask()
    shop.confirm(intent)
    shop.lab.send(shop.wish())
    shop.look_for(3600)
    refund = shop.wish("r1", action="refund", refund_of="p1", amount_minor=200)
    (result,) = shop.lab.send(refund)
    assert "succeeded" == result["status"]
    row = shop.stripe.rows("refunds")[result["gateway_ref"]]
    assert (200, charged(shop, intent)) == (row["amount"], [row["charge"]])


def test_a_debit_is_open_until_its_bank_has_answered(shop: Shop) -> None:
    """`processing` settles nothing; the intent is asked for, never called again."""
    (result,) = shop.lab.send(shop.wish(payment_method=shop.stripe.debited(REFUSED)))
    assert ("unknown", "pending_at_gateway") == (result["status"], result["reason"])
    until(lambda: "processing" not in {
        row["status"] for row in shop.stripe.rows("payment_intents").values()
    }, "its answer")  # fmt: skip
    shop.look_for(DAY_S)
    assert [("declined", "card_declined", True)] == shop.finals()
    assert 1 == Counter(shop.proxy.asked)["POST /v1/payment_intents"]


def hear(lab: OneTask, message: dict[str, Any]) -> None:
    """What a receiver does with a signed message."""
    mapped = webhook.read(message)
    assert mapped is not None
    of = ids_of(mapped)
    assert of is not None
    for event in gateway_events("stripe", mapped, of):
        lab.append(GATEWAY_EVENTS, event.user_id.encode(), event.to_bytes())
    lab.handle()
