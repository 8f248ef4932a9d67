"""What refunds may take, under any sequence of outcomes.

Operations: a refund is sent, with an outcome (succeeded, refused, lost after it happened, lost before it
did, proven unsent, a mismatch); it is sent again; the worker dies between the call and the commit; the
gateway tells of a refund; a refund fails after it happened, and the gateway tells; time passes until triggers
are due.
Checked properties, after each step:
1. refunded plus reserved is never above captured, neither is negative;
2. the gateway never has to refuse a refund for want of money: what is called was reserved;
3. reserved is what the open refunds hold.
In the end, when the gateway answers again:
4. refunded is what the gateway gave back and did not get back, in the charge's entry and, less what came
   back, in the user's state; nothing is reserved but by parked refunds;
5. every refund has one first result, at most one settling one.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.asked_gateway import HOUR_S, TRAITS
from support.gateway_said import ours, say
from support.one_task import OneTask
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    Declined,
    KeyMismatch,
    NotSent,
    Outcome,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.domain.statuses import OPEN

CAPTURED = 500


class Bank(ScriptedGateway):
    """Gives back at most what it captured; `mood` is how the next calls end."""

    def __init__(self) -> None:
        super().__init__(traits=TRAITS)
        self.mood = "succeeded"
        self.given: dict[str, tuple[str, int]] = {}
        self.failed: set[str] = set()
        self.refused: set[str] = set()
        self.overdrawn: list[RefundRequest] = []

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """By the mood; a key that has its end keeps it."""
        key = request.idempotency_key
        self.calls.append((key, timeout_s))
        if self.mood == "unsent":
            return NotSent("unreachable")
        if self.mood == "lost before":
            return Ambiguous("reset")
        if key not in self.given and (self.mood == "declined" or key in self.refused):
            self.refused.add(key)
            return Declined("charge_disputed")
        if key not in self.given:
            if self.mood == "mismatch":
                return KeyMismatch("idempotency_error")
            if self.gone() + request.amount_minor > CAPTURED:
                self.overdrawn.append(request)
                return Declined("charge_already_refunded")
            self.given[key] = request.payment_id, request.amount_minor
            await super().refund(request, timeout_s=timeout_s)
        return Ambiguous("reset") if self.mood == "lost" else Succeeded(self.refunds[key])

    def gone(self) -> int:
        """What it gave back for good; the key of a refund that failed keeps its answer."""
        return sum(amount for key, (_, amount) in self.given.items() if key not in self.failed)


MOODS = ["succeeded", "succeeded", "declined", "lost", "lost before", "unsent", "mismatch"]
steps = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "again", "crash", "told", "fails", "wait"]),
        st.integers(1, CAPTURED),
        st.sampled_from(MOODS),
    ),
    max_size=14,
)


class World:
    """One user with one charge."""

    def __init__(self, lab: OneTask, bank: Bank) -> None:
        self.lab, self.bank = lab, bank
        self.events: list[PaymentEvent] = []
        lab.send(self.payment("c1", "charge", CAPTURED))

    def payment(self, payment_id: str, action: str, amount: int) -> PaymentEvent:
        """An event of now."""
        fields: dict[str, Any] = {
            "payment_id": payment_id, "user_id": "u1", "action": action, "amount_minor": amount,
            "product": "gift", "currency": "USD", "payment_method": "pm_card_visa", "gateway": "simulated",
            "refund_of": "c1" if action == "refund" else None,
        }  # fmt: skip
        return PaymentEvent.from_mapping(fields, now_ms=self.lab.now_ms)

    def step(self, kind: str, number: int, mood: str) -> None:
        """One operation."""
        self.bank.mood = mood
        if kind in ("send", "crash"):
            self.events.append(self.payment(f"r{len(self.events)}", "refund", number))
        if kind == "send":
            self.lab.send(self.events[-1])
        elif kind == "crash":
            self.lab.append("payments", b"u1", self.events[-1].to_bytes())
            self.lab.deliver()
            self.lab.loop.settle()  # called, if it is allowed, not committed where it goes on trying
            self.lab.crash()
            self.lab.handle()
        elif kind == "again" and self.events:
            self.lab.send(self.events[number % len(self.events)])
        elif kind in ("told", "fails") and self.bank.given:
            given = list(self.bank.given.items())
            key, (payment_id, amount) = given[number % len(given)]
            ref = self.bank.refunds[key]
            if kind == "fails":
                self.bank.failed.add(key)
            status = "declined" if kind == "fails" else "succeeded"
            say(self.lab, ours("refund", status, payment_id, ref, amount_minor=amount))
        elif kind == "wait":
            self.lab.wait(number)
            self.lab.look()

    def check(self) -> None:
        """Properties 1 to 3."""
        charge = self.lab.entry("u1", "c1")
        refunded, reserved = charge["refunded_minor"], charge["reserved_minor"]
        assert min(refunded, reserved) >= 0 and refunded + reserved <= CAPTURED
        assert [] == self.bank.overdrawn
        entries = [self.lab.entry("u1", event.payment_id) for event in self.events]
        assert reserved == sum(entry["reserved_minor"] for entry in entries)
        open_minor = sum(one["amount_minor"] for one in entries if one["status"] in OPEN)
        assert reserved <= open_minor

    def check_end(self) -> None:
        """Properties 4, 5."""
        self.bank.mood = "succeeded"
        for _ in range(14):
            self.lab.wait(2 * HOUR_S)
            self.lab.look()
        entries = {event.payment_id: self.lab.entry("u1", event.payment_id) for event in self.events}
        parked = [one for one in entries.values() if one["status"] == "parked"]
        charge = self.lab.entry("u1", "c1")
        # a refund whose mismatch parked it was not executed under its key
        money = self.lab.row("charges", "u1")["money"]["USD"]
        refunded = money["refunded_minor"] - (money["charged_minor"] - CAPTURED)
        assert self.bank.gone() == refunded == charge["refunded_minor"]
        assert sum(one["amount_minor"] for one in parked) == charge["reserved_minor"]
        assert {"unknown"}.isdisjoint(one["status"] for one in entries.values())
        results = [one for one in self.lab.results() if one["origin"] == "event"]
        first = Counter(one["payment_id"] for one in results if not one["resolves"] and not one["replayed"])
        settled = Counter(one["payment_id"] for one in results if one["resolves"])
        assert dict.fromkeys([*entries, "c1"], 1) == dict(first)
        assert max(settled.values(), default=1) == 1


@settings(max_examples=80, deadline=None)
@given(steps)
def test_refunds_with_reservations_never_exceed_what_was_captured(
    sequence: list[tuple[str, int, str]],
) -> None:
    """Properties 1 to 5 of this file's first lines."""
    bank = Bank()
    with OneTask(bank) as lab:
        world = World(lab, bank)
        for step in sequence:
            world.step(*step)
            world.check()
        world.check_end()
