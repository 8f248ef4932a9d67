"""A rolling upgrade: what a newer release writes into a row outlives this release's rewrites of it.

Before each step every row gets a field that this release does not know, as if a newer worker had written it.
"""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.asked_gateway import HOUR_S, AskedGateway
from support.gateway_said import foreign, ours, say
from support.one_task import OneTask
from support.orders import resolve, switch
from support.subscribed import subscribe

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Ambiguous
from streamsocial_billing.settings import GATEWAY_EVENTS

NEWER = "of_a_newer_release"
COUNTERS = "task_counters"
Step = Callable[[OneTask, AskedGateway], None]


def _pay(lab: OneTask, payment_id: str, **fields: Any) -> None:
    filled = {
        "product": "gift", "amount_minor": 500, "currency": "USD", "payment_method": "pm_card_visa",
        "user_id": "u1", "payment_id": payment_id,
    } | fields  # fmt: skip
    lab.send(PaymentEvent.from_mapping(filled, now_ms=lab.now_ms, default_gateway="simulated"))


def charge(lab: OneTask, gateway: AskedGateway) -> None:
    """Or its replay; it holds a business_ref."""
    _pay(lab, "c1", business_ref="sub:1")


def other_charge(lab: OneTask, gateway: AskedGateway) -> None:
    """For the same thing: refused, or it takes over."""
    _pay(lab, "c2", business_ref="sub:1")


def lost_charge(lab: OneTask, gateway: AskedGateway) -> None:
    """Its outcome is open."""
    gateway.script = [Ambiguous("reset", ask_only=True)]
    _pay(lab, "c3")
    gateway.script = []


def refund(lab: OneTask, gateway: AskedGateway) -> None:
    """All of the charge, or it waits for it."""
    _pay(lab, "r1", action="refund", refund_of="c1")


def refund_of_the_lost(lab: OneTask, gateway: AskedGateway) -> None:
    """Waits as long as the charge is open."""
    _pay(lab, "r3", action="refund", refund_of="c3", amount_minor=100)


def pending_reported(lab: OneTask, gateway: AskedGateway) -> None:
    """The gateway tells of a charge before its event."""
    say(lab, ours("charge", "pending", "c4", "ch_4"))


def reported(lab: OneTask, gateway: AskedGateway) -> None:
    """Once more, with its end."""
    say(lab, ours("charge", "succeeded", "c4", "ch_4"))


def charge_reported(lab: OneTask, gateway: AskedGateway) -> None:
    """Its event comes, too."""
    _pay(lab, "c4")


def settled_by_message(lab: OneTask, gateway: AskedGateway) -> None:
    """The open charge has its end."""
    say(lab, ours("charge", "succeeded", "c3", "ch_3"))


def disputed(lab: OneTask, gateway: AskedGateway) -> None:
    """Money of the first charge is taken."""
    say(lab, foreign("dispute", "succeeded", "dp_1"))


def dispute_won(lab: OneTask, gateway: AskedGateway) -> None:
    """It comes back."""
    say(lab, foreign("dispute", "declined", "dp_1"))


def refund_failed(lab: OneTask, gateway: AskedGateway) -> None:
    """After it had succeeded: the charge holds its business_ref again."""
    entry = lab.entry("u1", "r1")
    if entry is not None:
        say(lab, ours("refund", "declined", "r1", entry["gateway_ref"] or "re_1"))


def days_pass(lab: OneTask, gateway: AskedGateway) -> None:
    """The timers look."""
    for _ in range(2):
        lab.wait(30 * HOUR_S)
        lab.look()


def archived(lab: OneTask, gateway: AskedGateway) -> None:
    """Entries become small."""
    lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
    lab.look()


def months_pass(lab: OneTask, gateway: AskedGateway) -> None:
    """Just enough for what was archived at the end of its time to be dropped."""
    lab.wait(393 * 24 * HOUR_S)
    lab.look()


def by_hand(lab: OneTask, gateway: AskedGateway) -> None:
    """A person settles the open charge, or is refused."""
    resolve(lab, "failed", payment_id="c3")


def stopped(lab: OneTask, gateway: AskedGateway) -> None:
    """The gateway, by order; twice over, it repeats the order."""
    switch(lab, stop=True)


def started(lab: OneTask, gateway: AskedGateway) -> None:
    """The gateway, by order."""
    switch(lab, stop=False)


def subscribed(lab: OneTask, gateway: AskedGateway) -> None:
    """Or the same order again."""
    subscribe(lab)


def repriced(lab: OneTask, gateway: AskedGateway) -> None:
    """The subscription costs something else."""
    lab.command("change-plan", subscription_id="42", amount_minor=1999)


def unsubscribed(lab: OneTask, gateway: AskedGateway) -> None:
    """At the end of what is paid."""
    lab.command("unsubscribe", subscription_id="42")


STEPS: tuple[Step, ...] = (
    charge, other_charge, lost_charge, refund, refund_of_the_lost, pending_reported, reported,
    charge_reported, settled_by_message, disputed, dispute_won, refund_failed, days_pass, archived,
    months_pass, by_hand, stopped, started, subscribed, repriced, unsubscribed,
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=2, max_size=10))
@example([charge, refund, other_charge, refund_failed, disputed, dispute_won, archived, charge])
@example([charge, refund, days_pass, other_charge, refund_failed, archived, months_pass])
@example([refund, disputed, charge, archived, dispute_won])
@example([pending_reported, reported, charge_reported, archived])
@example([lost_charge, refund_of_the_lost, days_pass, lost_charge, settled_by_message, archived])
@example([lost_charge, by_hand, stopped, stopped, started, subscribed, repriced, days_pass, unsubscribed])
def test_a_field_that_this_release_does_not_know_survives_its_rewrite(steps: list[Step]) -> None:
    """In every table, at any depth that this release rewrites, whatever happens to the payment."""
    gateway = AskedGateway()
    with OneTask(gateway) as lab:
        for step in steps:
            planted = _plant(lab)
            step(lab, gateway)
            assert [] == [where for where, value in planted.items() if not _there(lab, where, value)]


def test_the_steps_rewrite_every_table() -> None:
    """Else the property above would say nothing of one; what was handled once is never written again."""
    rewritten = set()
    with OneTask(gateway := AskedGateway()) as lab:
        for step in (
            charge, refund, other_charge, refund_failed, lost_charge, lost_charge, refund_of_the_lost,
            pending_reported, reported, days_pass, stopped, started, subscribed, repriced,
        ):  # fmt: skip
            before = {table: dict(disk.values) for table, disk in lab.disks.items()}
            step(lab, gateway)
            for table, rows in before.items():
                after = lab.disks[table].values
                if any(after.get(key, row) != row for key, row in rows.items()):
                    rewritten.add(table)

    assert lab.disks.keys() - {"gateway_events", "awaited_charges"} <= rewritten


Where = tuple[str, bytes, tuple[str, ...]]
"""Table, key, the way to the object that holds the unknown field."""


def _plant(lab: OneTask) -> dict[Where, Any]:
    """A field of a newer release in each row, in each object that this release changes in place."""
    planted: dict[Where, Any] = {}
    for table, disk in lab.disks.items():
        for key, value in disk.values.items():
            row = orjson.loads(value)
            for way in _ways(table, row):
                _at(row, way)[NEWER] = planted[table, key, way] = len(planted) + 1
            disk.values[key] = orjson.dumps(row)
    return planted


def _ways(table: str, row: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(), *(("money", one) for one in row["money"])] if table == "charges" else [()]


def _at(row: dict[str, Any], way: tuple[str, ...]) -> dict[str, Any]:
    for name in way:
        row = row[name]
    return row


def _there(lab: OneTask, where: Where, planted: Any) -> bool:
    """True if it is there, or its row has gone with what it was about."""
    table, key, way = where
    value = lab.disks[table].values.get(key)
    if value is None:
        return table not in ("charges", "subscriptions", "gateway_switches")
    return bool(_at(orjson.loads(value), way).get(NEWER) == planted)


@pytest.mark.parametrize("table", ["awaited_charges"])
def test_a_row_that_only_a_newer_release_needs_is_not_deleted(table: str) -> None:
    """What this release waits for is over, something that it does not know may not be."""
    gateway = AskedGateway()
    with OneTask(gateway) as lab:
        refund(lab, gateway)
        lab.put(table, "u1/c1", lab.row(table, "u1/c1") | {"more": ["d1"]})
        charge(lab, gateway)

        assert {"refunds": [], "told": [], "refunded_minor": 0, "more": ["d1"]} == lab.row(table, "u1/c1")


def test_a_message_that_waits_for_its_charge_keeps_what_a_newer_release_says_in_it() -> None:
    """The row holds the message as it came; a worker of that release may be the one that takes it out."""
    with OneTask(AskedGateway()) as lab:
        report = foreign("refund", "succeeded", "re_1")
        value = orjson.dumps(report.as_json() | {NEWER: {"vat": 7}})
        lab.append(GATEWAY_EVENTS, b"u1", value)
        lab.handle()

        assert [orjson.loads(value)] == lab.row("awaited_charges", "u1/c1")["told"]
