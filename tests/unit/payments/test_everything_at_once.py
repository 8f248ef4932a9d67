"""Charges, refunds, messages, people, stops, accounts, crashes, days that pass: in any order.

The bank forgets keys after a day, as gateways do, and then executes again what it is asked.
Checked properties, after each step:
1. no key is executed twice, nor more given back by our calls than a charge captured;
2. a final status never changes;
3. what a charge has reserved is what its open refunds hold.
In the end, when all is well again:
4. what succeeded in the books is what the bank executed; only a person's work waits;
5. a charge's entry has what went back: our refunds, those made at the gateway, disputes that are not won;
6. each event has one first result, at most one settling one; the live audit finds nothing.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.asked_gateway import HOUR_S, TRAITS
from support.audited import breaks
from support.gateway_said import foreign, ours, say
from support.one_task import OneTask
from support.orders import resolve, switch
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Declined,
    Found,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.domain.statuses import FINAL
from streamsocial_billing.settings import PAYMENTS

CAPTURED = 500
ACCOUNT = "acct_scripted"
REMEMBERED_MS = 24 * HOUR_S * 1000
Request = ChargeRequest | RefundRequest


class Bank(ScriptedGateway):
    """`mood` is how calls end; `done` holds what was executed, with the bank's own reference."""

    def __init__(self) -> None:
        super().__init__(traits=TRAITS, account=ACCOUNT)
        self.mood = "ok"
        self.lab: OneTask
        self.done: list[tuple[Request, str]] = []
        self._memory: dict[str, tuple[Outcome, int]] = {}

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """By the mood; a key that is remembered has its end."""
        return self._execute(request)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Like `charge`."""
        return self._execute(request)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """The truth, unless nobody answers."""
        if self.mood in ("unsent", "lost before"):
            return NotSent("unreachable")
        for request, ref in self.done:
            if request.idempotency_key == query.idempotency_key:
                return Found(ref, "succeeded", None, request.amount_minor, request.currency, request.user_id)
        return Absent()

    def _execute(self, request: Request) -> Outcome:
        if self.mood == "unsent":
            return NotSent("unreachable")
        if self.mood == "lost before":
            return Ambiguous("reset")
        outcome, at = self._memory.get(request.idempotency_key, (None, 0))
        if outcome is None or self.lab.now_ms - at >= REMEMBERED_MS:
            outcome = self._first(request)
            self._memory[request.idempotency_key] = outcome, self.lab.now_ms
        return Ambiguous("reset") if self.mood == "lost" else outcome

    def _first(self, request: Request) -> Outcome:
        if self.mood == "declined":
            return Declined("card_declined")
        self.done.append((request, f"it_{len(self.done)}"))
        return Succeeded(self.done[-1][1])


class World:
    """One user. A step's `number` chooses among what there is, or is an amount or a time."""

    def __init__(self, lab: OneTask, bank: Bank) -> None:
        self.lab, self.bank = lab, bank
        bank.lab = lab
        self.events: list[PaymentEvent] = []
        self.finals: dict[str, str] = {}
        self.taken: Counter[str] = Counter()
        self.disputes: list[tuple[str, str, int]] = []
        self.won: set[int] = set()

    # -- steps

    def charge(self, number: int) -> None:
        """A new one; now and then two of them are for the same thing."""
        self.lab.send(self._event("charge", CAPTURED, business_ref=f"b{number % 3}" if number % 2 else None))

    def refund(self, number: int) -> None:
        """Of a charge, or of one that is not there."""
        self.lab.send(self._refund(number))

    def again(self, number: int) -> None:
        """The same event once more."""
        if self.events:
            self.lab.send(self.events[number % len(self.events)])

    def crash(self, number: int) -> None:
        """Called, not committed; delivered again at once, or when the bank has forgotten nearly all."""
        charges = [self._event("charge", CAPTURED)] if number % 2 else []
        for event in (*charges, self._refund(number)):
            self.lab.append(PAYMENTS, b"u1", event.to_bytes())
        self.lab.deliver()
        self.lab.loop.settle()
        self.lab.crash()
        self.bank.mood = "ok" if number % 3 else "unsent"
        self.lab.wait(20 * HOUR_S if number % 5 == 0 else 0)
        self.lab.handle()

    def told(self, number: int) -> None:
        """The bank tells of something that it did."""
        if self.bank.done:
            request, ref = self.bank.done[number % len(self.bank.done)]
            kind = "charge" if isinstance(request, ChargeRequest) else "refund"
            status = "pending" if number % 4 == 0 else "succeeded"
            fields = {"amount_minor": request.amount_minor}
            say(self.lab, ours(kind, status, request.payment_id, ref, **fields))

    def taken_at_the_bank(self, number: int) -> None:
        """A refund or a dispute that we did not order."""
        charges = [one for one in self.bank.done if isinstance(one[0], ChargeRequest)]
        if charges:
            request, ref = charges[number % len(charges)]
            kind, charge_id, name = "refund", request.payment_id, f"x_{sum(self.taken.values())}_{number}"
            if number % 2:
                kind, name = "dispute", f"dp_{len(self.disputes)}"
                self.disputes.append((charge_id, ref, number))
            self.taken[charge_id] += number
            about = {"charge_id": charge_id, "charge_ref": ref, "amount_minor": number}
            say(self.lab, foreign(kind, "succeeded", name, **about))

    def win(self, number: int) -> None:
        """A dispute comes back, once."""
        if self.disputes:
            which = number % len(self.disputes)
            charge_id, ref, amount = self.disputes[which]
            self.taken[charge_id] -= 0 if which in self.won else amount
            self.won.add(which)
            about = {"charge_id": charge_id, "charge_ref": ref, "amount_minor": amount}
            say(self.lab, foreign("dispute", "declined", f"dp_{which}", **about))

    def person(self, number: int) -> None:
        """Settles by hand, knowing the truth."""
        if self.events:
            event = self.events[number % len(self.events)]
            ref = self._executed().get(gateway_key(event))
            resolve(self.lab, "failed" if ref is None else "succeeded", ref, event.payment_id)

    def turn(self, number: int) -> None:
        """The gateway is stopped, or started."""
        switch(self.lab, stop=number % 2 == 0)

    def account(self, number: int) -> None:
        """It is another one, not known yet, or the one it was."""
        self.bank.account = (ACCOUNT, "", "acct_other")[number % 3]
        self.lab.look()

    def wait(self, number: int) -> None:
        """Minutes to hours."""
        self.lab.wait(number * (60 if number % 2 else 600))
        self.lab.look()

    def _event(self, action: str, amount: int, **more: Any) -> PaymentEvent:
        fields = {
            "payment_id": f"p{len(self.events)}", "user_id": "u1", "action": action, "amount_minor": amount,
            "product": "gift", "currency": "USD", "payment_method": "pm", "gateway": "simulated",
        } | more  # fmt: skip
        self.events.append(PaymentEvent.from_mapping(fields, now_ms=self.lab.now_ms))
        return self.events[-1]

    def _refund(self, number: int) -> PaymentEvent:
        charges = [event.payment_id for event in self.events if event.action == "charge"]
        of = charges[number % len(charges)] if charges and number % 7 else "p_not_there"
        return self._event("refund", number, refund_of=of)

    # -- properties

    def _executed(self) -> dict[str, str]:
        return {request.idempotency_key: ref for request, ref in self.bank.done}

    def check(self) -> None:
        """1 to 3."""
        assert len(self.bank.done) == len(self._executed())
        given, reserved = Counter[str](), Counter[str | None]()
        for request, _ in self.bank.done:
            if isinstance(request, RefundRequest):
                given[request.charge_ref] += request.amount_minor
        assert max(given.values(), default=0) <= CAPTURED
        entries = [(event, self.lab.entry("u1", event.payment_id)) for event in self.events]
        for event, entry in entries:
            if entry["status"] in FINAL:
                assert self.finals.setdefault(event.payment_id, entry["status"]) == entry["status"]
            if event.action == "refund":
                reserved[event.refund_of] += entry["reserved_minor"]
        for event, entry in entries:
            assert event.action == "refund" or reserved[event.payment_id] == entry["reserved_minor"]

    def check_end(self) -> None:
        """4 to 6."""
        self.bank.mood, self.bank.account = "ok", ACCOUNT
        switch(self.lab, stop=False, account=ACCOUNT)
        for _ in range(40):
            self.lab.wait(2 * HOUR_S)
            self.lab.look()
        self.check()
        back, waiting = self.taken.copy(), set[str | None]()
        for event in sorted(self.events, key=lambda event: event.action):
            entry = self.lab.entry("u1", event.payment_id)
            person = entry["status"] == "parked" or entry["gateway_account"] == "acct_other"
            if person or event.refund_of in waiting:
                waiting.add(event.payment_id)
            else:
                assert entry["status"] in FINAL
                assert (gateway_key(event) in self._executed()) == (entry["status"] == "succeeded")
            if event.refund_of is not None and entry["status"] == "succeeded":
                back[event.refund_of] += event.amount_minor
        for event in self.events:
            entry = self.lab.entry("u1", event.payment_id)
            if event.action == "charge" and entry["status"] == "succeeded":
                assert back[event.payment_id] == entry["refunded_minor"]
        results = [one for one in self.lab.results() if one["origin"] == "event" and not one["replayed"]]
        first = Counter(one["payment_id"] for one in results if not one["resolves"])
        assert dict.fromkeys((event.payment_id for event in self.events), 1) == dict(first)
        assert max(Counter(one["payment_id"] for one in results if one["resolves"]).values(), default=1) == 1
        assert [] == breaks(self.lab)


STEPS = (
    World.charge, World.refund, World.refund, World.again, World.crash, World.told, World.taken_at_the_bank,
    World.win, World.person, World.turn, World.account, World.wait, World.wait,
)  # fmt: skip
MOODS = ("ok", "ok", "ok", "declined", "lost", "lost before", "unsent")
steps = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(1, CAPTURED), st.sampled_from(MOODS)),
    min_size=6, max_size=24,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps)
def test_money_moves_once_whatever_happens_together(sequence: list[tuple[Any, int, str]]) -> None:
    """Properties 1 to 6 of this file's first lines."""
    bank = Bank()
    with OneTask(bank) as lab:
        world = World(lab, bank)
        for step, number, mood in sequence:
            bank.mood = mood
            step(world, number)
            world.check()
        world.check_end()
