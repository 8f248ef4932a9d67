"""Renewals under any interleaving of time, triggers, crashes, outcomes.

Operations: time passes; the timers look; their triggers are lost, or come three times; commits end in every
way in which they can; the process dies amid the work; the gateway charges, declines softly, is not reached,
charges unseen, or leaves a doubt without a charge; the user changes plan or payment method; a caller pays.
Checked: (1) the gateway charged no period twice; (2) periods were sent in order; (3) once all is healed each
period that has begun was charged once, by somebody, unless dunning was used up meanwhile; (4) each sent event
has its `requested` metric in its own transaction; (5) no two payments of a period are under way or paid, nor
was a second one tried; (6) nothing was sent before its period began.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layer_kit.memory_kafka import ENDINGS
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask

from streamsocial_billing.domain.events import PaymentEvent, RetryTrigger
from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Declined,
    NotSent,
    Outcome,
    RefundRequest,
)
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.settings import COMMANDS, METRICS, PAYMENTS, RETRY, Settings
from streamsocial_billing.subscriptions.periods import index_at, name_of, start_of

MOODS: dict[str, Outcome] = {
    "soft": Declined("insufficient_funds", None, soft=True),
    "not_sent": NotSent("unreachable"),
    "doubt": Ambiguous("http_500", ask_only=True),
    "charged_unseen": Ambiguous("http_500", ask_only=True),
    "charged_then_reset": Ambiguous("reset"),
}  # fmt: skip
TRIGGER = RetryTrigger("u1", "42", "subscription").to_bytes()
HELD = ("unknown", "parked", "succeeded")
DUNNING = ",".join(map(str, range(1, 21)))


class MoodyGateway(AskedGateway):
    """Each call takes a second, the charge is made at its beginning; `moods` says how the next ones end."""

    def __init__(self) -> None:
        super().__init__()
        self.moods: list[str] = []
        self.declined: set[str] = set()

    async def _scripted(
        self, request: ChargeRequest | RefundRequest, call: Callable[..., Any], timeout_s: float
    ) -> Outcome:
        mood, key = self.moods.pop(0) if self.moods else "charge", request.idempotency_key
        if mood == "soft" and key in self.charges:
            mood = "charge"  # a gateway keeps its word: the same key brings the same outcome
        elif mood == "soft" or key in self.declined:
            mood = "soft"
            self.declined.add(key)
        if mood not in MOODS or mood.startswith("charged"):
            done: Outcome = await super()._scripted(request, call, timeout_s)
        else:
            self.requests.append(request)
        await asyncio.sleep(1)
        return MOODS[mood] if mood in MOODS else done


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([60, *(h * HOUR_S for h in (5, 26, 200, 1000))])),
        st.tuples(st.just("due"), st.lists(st.sampled_from(sorted(MOODS)), max_size=3)),
        st.tuples(st.just("due and dies"), st.sampled_from([0.001, 0.3, 0.9, 1.2])),
        st.tuples(st.just("look"), st.integers(1, 3)),
        st.tuples(st.just("lose"), st.none()),
        st.tuples(st.just("trigger"), st.integers(1, 3)),
        st.tuples(st.just("die"), st.sampled_from([0.001, 0.3, 0.9, 1.2])),
        st.tuples(st.just("end"), st.sampled_from(ENDINGS)),
        st.tuples(st.just("mood"), st.lists(st.sampled_from(sorted(MOODS)), min_size=1, max_size=4)),
        st.tuples(st.just("order"), st.sampled_from(["change-plan", "update-payment-method"])),
        st.tuples(st.just("pay"), st.none()),
    ),
    max_size=30,
)  # fmt: skip


class World:
    """One subscription, and everything that can go wrong with it."""

    def __init__(self, interval: str) -> None:
        self.gateway = MoodyGateway()
        self.lab = OneTask(self.gateway, settings=Settings(partitions=1, dunning_days=DUNNING))
        self.interval = interval
        self.number = 0

    def begin(self) -> None:
        """Order it."""
        self.lab.command(
            "subscribe", subscription_id="42", gateway="simulated", amount_minor=999, currency="USD",
            payment_method="pm_1", interval=self.interval,
        )  # fmt: skip

    def do(self, step: str, how: Any) -> None:
        """One operation."""
        lab = self.lab
        if step == "wait":
            self.pass_time(how)
        elif step == "due":
            self.gateway.moods = list(how)
            self.pass_time(max(0.0, ((self.row()["next_at"] or 0) - lab.now_ms) / 1000))
            self.look()
        elif step == "due and dies":
            self.pass_time(max(0.0, ((self.row()["next_at"] or 0) - lab.now_ms) / 1000))
            lab.append(RETRY, b"u1", TRIGGER)
            lab.deliver()
            lab.loop.settle(0.001)
            lab.deliver()
            lab.loop.settle(how)
            self.restart()
        elif step == "look":
            for _ in range(how):
                self.look()
        elif step == "lose":
            log = lab.kafka.logs[lab.settings.topic(RETRY), 0]
            before = len(log)
            lab.loop.run_until_complete(lab.renewing.run_once(lab.now_ms))
            del log[before:]
        elif step == "trigger":
            for _ in range(how):
                lab.append(RETRY, b"u1", TRIGGER)
        elif step == "die":
            lab.deliver()
            lab.loop.settle(how)
            self.restart()
        elif step == "end":
            lab.kafka.ending = how
            lab.deliver()
            lab.loop.settle(2)
            self.restart()
        elif step == "mood":
            self.gateway.moods = list(how)
        elif step == "order":
            self.order(how)
        else:
            self.pay()

    def pass_time(self, seconds: float) -> None:
        """`payments` is kept for 30 days: so long no worker may be away."""
        if seconds > 700 * HOUR_S:
            self.lab.handle()
        self.lab.wait(seconds)

    def look(self) -> None:
        """The timers look, what they trigger is handled, a while passes."""
        self.lab.look()
        self.lab.wait(61)

    def order(self, command: str) -> None:
        """Something else from now on."""
        self.number += 1
        changes: dict[str, dict[str, Any]] = {
            "change-plan": {"amount_minor": 1000 + self.number},
            "update-payment-method": {"payment_method": f"pm_{self.number}"},
        }
        details = {"subscription_id": "42", **changes[command]}
        order = Command(command, "ann", "because", self.lab.now_ms, "u1", details)
        self.lab.append(COMMANDS, b"u1", order.to_bytes())

    def pay(self) -> None:
        """A caller pays for the period that is next."""
        self.number += 1
        row = self.row()
        event = PaymentEvent(
            payment_id=f"web-{self.number}", user_id="u1", product="subscription", amount_minor=999,
            currency="USD", payment_method="pm_web", gateway="simulated",
            business_ref=f"sub:42:{name_of(row['anchor'], self.interval, row['period'])}",
            requested_at=self.lab.now_ms,
        )  # fmt: skip
        self.lab.append(PAYMENTS, b"u1", event.to_bytes())

    def restart(self) -> None:
        """The process died; the next one begins from what was committed."""
        lab = self.lab
        lab.loop.run_until_complete(lab.task.close(grace_s=0, last_commit_s=0))
        lab.kafka.ending = "commits"
        for name, table in lab.app.tables.items():
            lab.disks[name].values = lab.kafka.fold(str(table.changelog_topic_name))
        lab.open()

    def row(self) -> Any:
        """The subscription as committed."""
        return self.lab.row("subscriptions", "u1/42")

    def heal(self) -> None:
        """Nothing goes wrong any more, until nothing is due."""
        self.gateway.moods = []
        self.lab.handle()
        for _ in range(600):
            row, is_open = self.row(), self.lab.disks["open_payments"].values
            if not is_open and row["state"] == "active" and (row["next_at"] or 0) > self.lab.now_ms:
                return
            if row["state"] == "unpaid":
                self.order("update-payment-method")
            self.look()
            if is_open or row["state"] != "active":
                self.lab.wait(6 * HOUR_S)
        raise AssertionError(f"it does not heal: {self.row()}")

    def was_unpaid(self) -> bool:
        """True if dunning was ever used up: the periods until somebody did something were not charged."""
        table: Any = self.lab.app.tables["subscriptions"]
        changelog = self.lab.kafka.changelogs[str(table.changelog_topic_name)]
        rows = [one[1] for one in changelog if one is not None and one[1] is not None]
        return any(orjson.loads(row)["state"] == "unpaid" for row in rows)

    def sent(self) -> list[dict[str, Any]]:
        """What the scheduler sent, in order."""
        return [orjson.loads(one.value) for one in self.lab.sent(PAYMENTS)]


@pytest.mark.timeout(600)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@example(  # dunning is used up, then ended by an order
    [("due", ["soft"]), ("mood", ["soft"]), ("wait", 1000 * HOUR_S), ("look", 1),
     ("order", "update-payment-method")], "day",
)  # fmt: skip
@given(steps, st.sampled_from(["day", "week", "month"]))
def test_each_period_is_charged_once_whatever_happens(steps: list[tuple[str, Any]], interval: str) -> None:
    """The checks (1) to (6) of this module."""
    world = World(interval)
    with world.lab:
        world.begin()
        for step, how in steps:
            world.do(step, how)
        world.heal()
        check(world)


def check(world: World) -> None:
    """(1) to (6)."""
    row, lab = world.row(), world.lab
    names = [f"sub:42:{name_of(row['anchor'], world.interval, index)}" for index in range(row["period"])]
    new = [one for one in lab.results() if not one["replayed"]]
    moved = [one["business_ref"] for one in new if one["status"] == "succeeded"]
    assert len(moved) == len(world.gateway.charges), "(1)"
    was_unpaid = world.was_unpaid()
    paid = [name for name in names if name in moved or not was_unpaid]
    assert dict.fromkeys(paid, 1) == Counter(moved), "(1), (3)"
    assert row["period"] > index_at(row["anchor"], world.interval, lab.now_ms), "(3)"  # some in advance
    periods = [names.index(one["business_ref"]) for one in world.sent()]
    assert all(0 <= later - one for one, later in pairwise(periods)), "(2)"
    begins = {name: start_of(row["anchor"], world.interval, index) for index, name in enumerate(names)}
    assert [] == [one for one in world.sent() if one["requested_at"] < begins[one["business_ref"]]], "(6)"
    assert [] == [one for one in new if (one["conflicts_with"] or "").startswith("r1_")
                  and one["payment_id"].startswith("r1_")], "(5)"  # fmt: skip
    for transaction in lab.kafka.transactions:
        sent = [one for one in transaction.records if one.topic == lab.settings.topic(PAYMENTS)]
        metrics = [one for one in transaction.records if one.topic == lab.settings.topic(METRICS)]
        told = [orjson.loads(one.value or b"")["status"] for one in metrics]
        assert len(sent) == told.count("requested"), "(4)"
    # of a payment that was unknown the first result and the last one are counted once, as its last one
    open_or_paid = {(one["business_ref"], one["payment_id"]) for one in new if one["status"] in HELD}
    gone = {(one["business_ref"], one["payment_id"]) for one in new if one["resolves"]} - {
        (one["business_ref"], one["payment_id"]) for one in new if one["status"] == "succeeded"
    }
    assert dict.fromkeys(paid, 1) == Counter(ref for ref, _ in open_or_paid - gone), "(5)"
