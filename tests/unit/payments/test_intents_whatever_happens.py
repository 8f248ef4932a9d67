"""Intents against a model: messages, questions, re-sent events, crashes, people, customers; in any order.

Checked in the end, when all has had its time:
1. each event has one first result, at most one that resolves it; a final status never changes;
2. what the books charged is what the gateway took, all of it: as a payment, or as an external one;
3. no payment is paid twice; one that the books declined is canceled, or declined at the gateway, unless its
   success is booked beside it;
4. the live audit finds nothing.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.asked_gateway import HOUR_S
from support.audited import breaks
from support.gateway_said import ours, say
from support.intent_bank import Intent, IntentBank
from support.one_task import OneTask
from support.orders import resolve

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED, PENDING
from streamsocial_billing.domain.statuses import FINAL
from streamsocial_billing.settings import PAYMENTS

METHODS = ("pm_auth", "pm_auth", "pm_auth", "pm_declined", "pm_processing", "pm_card_visa")


class World:
    """One user with charges c0, c1, ..."""

    def __init__(self, lab: OneTask, bank: IntentBank) -> None:
        self.lab, self.bank = lab, bank
        self.events: list[PaymentEvent] = []
        self.finals: dict[str, str] = {}

    def charge(self, number: int) -> None:
        """A new one."""
        self.lab.send(self._event(number))

    def again(self, number: int) -> None:
        """The same event once more."""
        if self.events:
            self.lab.send(self.events[number % len(self.events)])

    def crash(self, number: int) -> None:
        """Called, not committed: delivered again."""
        self.lab.append(PAYMENTS, b"u1", self._event(number).to_bytes())
        self.lab.deliver()
        self.lab.loop.settle()
        self.lab.crash()
        if number % 2 and self.bank.intents:
            self.bank.confirm(len(self.bank.intents) - 1)
        self.lab.handle()

    def customer(self, number: int) -> None:
        """Somebody confirms."""
        if self.bank.intents:
            self.bank.confirm(number % len(self.bank.intents))

    def fails(self, number: int) -> None:
        """A customer's own try is declined, or is at work."""
        for one in self._some(number):
            if one.status == "pending":
                one.reason = PENDING if number % 3 == 0 else AUTHENTICATION_REQUIRED
                one.status = "declined" if number % 3 == 1 else "pending"
                one.reason = "lost_card" if one.status == "declined" else one.reason

    def told(self, number: int) -> None:
        """What an intent is, by one of its names."""
        for one in self._some(number):
            found = one.found()
            names: dict[str, Any] = {"intent": one.ref, "intent_charge": one.charge if number % 2 else None}
            self._say(one, found.status, found.reason, canceled=found.canceled, **names)

    def old_news(self, number: int) -> None:
        """What it was at first: a failed charge, told late."""
        for one in self._some(number):
            status = "declined" if number % 2 else "pending"
            self._say(one, status, AUTHENTICATION_REQUIRED if number % 3 else "lost_card", intent=one.ref)

    def person(self, number: int) -> None:
        """Orders a decline."""
        if self.events:
            resolve(self.lab, "declined", None, self.events[number % len(self.events)].payment_id)

    def wait(self, number: int) -> None:
        """Minutes to a day."""
        self.lab.wait(number * 60)
        self.lab.look()

    def _some(self, number: int) -> list[Intent]:
        return self.bank.intents[number % len(self.bank.intents) :][:1] if self.bank.intents else []

    def _say(self, one: Intent, status: str, reason: str | None, **more: Any) -> None:
        say(self.lab, ours("charge", status, one.request.payment_id, one.ref, reason=reason, **more))

    def _event(self, number: int) -> PaymentEvent:
        fields = {
            "payment_id": f"c{len(self.events)}", "user_id": "u1", "action": "charge", "amount_minor": 500,
            "product": "gift", "currency": "USD", "payment_method": METHODS[number % len(METHODS)],
            "gateway": "simulated",
        }  # fmt: skip
        self.events.append(PaymentEvent.from_mapping(fields, now_ms=self.lab.now_ms))
        return self.events[-1]

    def check(self) -> None:
        """A final status stays."""
        for event in self.events:
            status = self.lab.entry("u1", event.payment_id)["status"]
            if status in FINAL:
                assert self.finals.setdefault(event.payment_id, status) == status

    def check_end(self) -> None:
        """1 to 4."""
        self.bank.mood = "ok"
        for _ in range(30):
            for number, one in enumerate(self.bank.intents):
                if one.reason == PENDING:
                    self.bank.confirm(number)
            self.lab.wait(6 * HOUR_S)
            self.lab.look()
        for number in range(len(self.bank.intents)):
            self.told(number)
        self.check()
        results = [one for one in self.lab.results() if not one["replayed"]]
        first = Counter(
            one["payment_id"] for one in results if not one["resolves"] and one["origin"] == "event"
        )
        assert dict.fromkeys((event.payment_id for event in self.events), 1) == dict(first)
        assert max(Counter(one["payment_id"] for one in results if one["resolves"]).values(), default=1) == 1
        booked = Counter[str]()
        for result in results:
            if result["status"] == "succeeded":
                booked[result["payment_id"] if result["origin"] == "event" else result["refund_of"]] += 500
        assert self.bank.paid() == dict(booked)
        assert {500} >= set(booked.values())
        for event in self.events:
            assert self.lab.entry("u1", event.payment_id)["status"] in (*FINAL, "parked")
        assert [] == breaks(self.lab)


STEPS = (
    World.charge, World.charge, World.again, World.crash, World.customer, World.customer, World.fails,
    World.told, World.told, World.old_news, World.person, World.wait, World.wait, World.wait,
)  # fmt: skip
MOODS = ("ok", "ok", "ok", "lost", "unsent")
steps = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 1500), st.sampled_from(MOODS)),
    min_size=4, max_size=20,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps)
def test_an_intent_is_counted_once_whatever_happens(sequence: list[tuple[Any, int, str]]) -> None:
    """The properties of this file's first lines."""
    bank = IntentBank()
    with OneTask(bank) as lab:
        world = World(lab, bank)
        for step, number, mood in sequence:
            bank.mood = mood
            step(world, number)
            world.check()
        world.check_end()
