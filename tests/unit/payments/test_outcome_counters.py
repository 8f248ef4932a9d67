"""What became of each event, counted by outcome: the parts add up to what was handled, at every moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.asked_gateway import AskedGateway
from support.audited import breaks
from support.gateway_said import foreign, say
from support.one_task import START_MS, OneTask
from support.orders import resolve

from streamsocial_billing.audit.outcomes import Breakdown, breakdown
from streamsocial_billing.audit.watching import ROUND_EVERY_MS, Checked, LiveAudit, as_json
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Declined, Invalid, KeyMismatch
from streamsocial_billing.settings import COMMANDS, PAYMENTS
from streamsocial_billing.web.audit import AuditMetrics, summary

NOT_UNDERSTOOD = RuntimeError("an answer that nobody understands")


def payment(payment_id: str, action: str = "charge", amount_minor: int = 500, **more: Any) -> PaymentEvent:
    """Of the user u1, in USD."""
    fields = {"refund_of": None, "gateway": "simulated"} | more
    return PaymentEvent(
        payment_id=payment_id, user_id="u1", action=action, product="gift", amount_minor=amount_minor,
        currency="USD", payment_method="pm_card_visa", gateway=fields["gateway"],
        refund_of=fields["refund_of"], requested_at=START_MS,
    )  # fmt: skip


class Lab:
    """One task with a live audit that looks when it is asked."""

    def __init__(self, lab: OneTask, gateway: AskedGateway) -> None:
        self.lab, self.gateway = lab, gateway
        counters: Any = lab.app.tables["task_counters"]
        self.live = LiveAudit(lab.layer, counters, lab.settings.topic(PAYMENTS))
        self._looks = 0

    def look(self, pause_ms: int = ROUND_EVERY_MS) -> Checked:
        """Look once; by default a walk through the rows is due, and through with this look."""
        self._looks += pause_ms
        self.lab.loop.run_until_complete(self.live.run_once(START_MS + self._looks))
        (checked,) = self.live.tasks()
        return checked

    def found(self) -> Breakdown:
        """The breakdown by the committed counters, which must be free of breaks and add up."""
        assert [] == breaks(self.lab)
        found = breakdown(self.look().numbers, self.live.topic)
        assert found.handled == sum(found[1:10])
        return found

    def some_of_each(self) -> None:
        """Two charged, a refund, a decline, a failure, a rejection, repeats, dead letters, two left open."""
        lab, script = self.lab, self.gateway.script
        script += [Declined("card_declined"), Invalid("no such token"), NOT_UNDERSTOOD, NOT_UNDERSTOOD]
        for name in ("declined", "failed", "open1", "open2"):
            lab.send(payment(name))
        lab.send(payment("c1"), payment("c2"), payment("c1"), payment("open1"))
        lab.send(payment("r1", "refund", 200, refund_of="c1"), payment("n1", gateway="paypal"))
        lab.append(PAYMENTS, None, b"no json")
        lab.append(COMMANDS, b"u1", b"{}")
        lab.handle()
        say(lab, foreign("refund", "succeeded", "re_1", amount_minor=50))


@pytest.fixture
def audited() -> Iterator[Lab]:
    gateway = AskedGateway()
    with OneTask(gateway) as lab:
        yield Lab(lab, gateway)


def test_every_handled_event_is_counted_under_one_outcome(audited: Lab) -> None:
    """What a gateway made, and dead letters of other topics, are counted apart."""
    audited.some_of_each()
    assert Breakdown(
        handled=11, charged=2, refunded=1, declined=1, failed=1, rejected=1, open=2, repeats=2,
        dead_letters=1, uncounted=0, dead_letters_elsewhere=1, external=1,
    ) == audited.found()  # fmt: skip


def test_an_open_payment_moves_to_its_outcome_when_it_is_settled(audited: Lab) -> None:
    """It is never in two places, nor in none; its earlier repeat stays one."""
    audited.some_of_each()
    before = audited.found()
    audited.gateway.script.append(Declined("card_declined"))
    audited.lab.wait(60)
    audited.lab.look()
    moved = {"charged": before.charged + 1, "declined": before.declined + 1, "open": 0}
    assert before._replace(**moved) == audited.found()


def test_a_crash_counts_nothing_twice(audited: Lab) -> None:
    """What was delivered and not committed is handled again, and counted once."""
    for number in range(3):
        audited.lab.append(PAYMENTS, b"u1", payment(f"p{number}").to_bytes())
    audited.lab.deliver()
    audited.lab.loop.settle()
    audited.lab.crash()
    audited.lab.handle()
    assert (3, 3) == (audited.found().handled, audited.found().charged)


def forget_outcomes(lab: OneTask) -> None:
    """Make the counters those of a release that counted no outcomes."""
    record = lab.disks["task_counters"].values[b"task"]
    kept = {k: n for k, n in json.loads(record).items() if not k.startswith(("outcomes/", "parked"))}
    lab.disks["task_counters"].values[b"task"] = json.dumps(kept, sort_keys=True).encode()
    lab.crash()


def test_a_system_upgraded_amid_its_life_shows_what_was_not_counted(audited: Lab) -> None:
    """`uncounted` is what ended before, for ever the same; no break, nothing lost, the parts still add up."""
    audited.some_of_each()
    forget_outcomes(audited.lab)
    before = audited.found()
    assert (11, 0, 2, 1, 8) == (
        before.handled, before.charged, before.open, before.dead_letters, before.uncounted
    )  # fmt: skip
    audited.lab.send(payment("c3"), payment("c3"), payment("c1"))
    audited.lab.wait(60)
    audited.lab.look()  # what was left open before the upgrade is settled after it
    after = before._replace(handled=14, charged=3, open=0, repeats=2)
    assert after == audited.found()
    task = as_json(audited.look(), audited.live.topic)
    assert (0, 0) == (task["payments"]["lost"], task["payments"]["double"])


def test_an_older_worker_amid_a_rolling_upgrade_only_adds_to_what_is_not_counted(audited: Lab) -> None:
    """The task goes to the new release, back to the old one, to the new one again."""
    audited.lab.send(payment("c1"))
    new = json.loads(audited.lab.disks["task_counters"].values[b"task"])
    audited.gateway.script.append(NOT_UNDERSTOOD)
    audited.lab.send(payment("c2"), payment("c3"), payment("c2"))
    numbers = json.loads(audited.lab.disks["task_counters"].values[b"task"])
    kept = {k: n for k, n in numbers.items() if not k.startswith(("outcomes/", "parked"))}
    kept |= {k: n for k, n in new.items() if k.startswith(("outcomes/", "parked"))}
    audited.lab.disks["task_counters"].values[b"task"] = json.dumps(kept, sort_keys=True).encode()
    audited.lab.crash()
    audited.lab.send(payment("c4"))
    found = audited.found()
    assert (5, 2, 1, 2) == (found.handled, found.charged, found.open, found.uncounted)


def test_an_outcome_counted_as_another_is_found(audited: Lab) -> None:
    """The rows know a charge, the counters a decline: a break, though every sum is right."""
    audited.lab.send(payment("c1"))
    disk = audited.lab.disks["task_counters"]
    disk.values[b"task"] = disk.values[b"task"].replace(b"outcomes/charged", b"outcomes/declined")
    audited.lab.crash()
    assert [
        "outcomes succeeded: 0 expected, 1 found", "outcomes declined: 1 expected, 0 found"
    ] == breaks(audited.lab)  # fmt: skip


def test_open_payments_by_status_are_those_of_this_moment(audited: Lab) -> None:
    """Between two walks through the rows, too: unknown and parked are always the open ones."""
    lab, script = audited.lab, audited.gateway.script
    script.append(NOT_UNDERSTOOD)
    lab.send(payment("p0"))
    assert {"unknown": 1, "parked": 0} == audited.look().open
    script += [KeyMismatch("other parameters"), NOT_UNDERSTOOD, KeyMismatch("other parameters")]
    lab.send(payment("p1"), payment("p2"), payment("p3"))
    assert {"unknown": 2, "parked": 2} == audited.look(1).open
    resolve(lab, "failed", payment_id="p1")
    assert {"unknown": 2, "parked": 1} == audited.look(1).open
    lab.wait(60)
    script += [KeyMismatch("other parameters")] * 2
    lab.look()
    now = audited.look(1)
    assert ({"unknown": 0, "parked": 3}, now.open) == (now.open, audited.look().open)
    assert 3 == breakdown(now.numbers, audited.live.topic).open


def test_the_page_and_the_metrics_have_the_same_numbers_under_the_same_names(audited: Lab) -> None:
    """`/audit`, its sum over tasks, the metrics; a worker of an older release is in the sum, too."""
    audited.some_of_each()
    audited.look()
    topic = audited.live.topic
    task = as_json(audited.look(), topic)
    older = {k: v for k, v in task.items() if k != "outcomes"} | {"partition": 1}
    total = summary([task, older], 8, topic)["outcomes"]
    assert task["outcomes"] == breakdown(task["counters"], topic).as_json()
    assert {name: 2 * number for name, number in task["outcomes"].items()} == total
    assert total["handled"] == sum(total[name] for name in Breakdown._fields[1:10])

    registry = CollectorRegistry()
    registry.register(AuditMetrics(audited.live))
    for name in Breakdown._fields[1:10]:
        metric, labels = "billing_audit_outcomes_total", {"outcome": name}
        if name == "open":
            metric, labels = "billing_audit_open", {"status": "unknown"}
        value = registry.get_sample_value(metric, {"partition": "0", **labels})
        assert (name, value) == (name, task["outcomes"][name])
