"""What is kept of a final payment, for how long, in virtual time."""


import pytest
from layer_kit.memory_kafka import MemoryStore
from msgspec.structs import replace
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask

from faust_exactly_once.errors import StoreFailed
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Ambiguous
from streamsocial_billing.timers.retention import RetentionTimer

DAY_S = 24 * HOUR_S
FULL_S = 35 * DAY_S
SMALL_S = 395 * DAY_S


def payment(lab: OneTask, payment_id: str = "p1", business_ref: str | None = None) -> PaymentEvent:
    """A payment of the user u1, made now."""
    return PaymentEvent(
        payment_id=payment_id, user_id="u1", product="gift", amount_minor=500, currency="USD",
        payment_method="pm_card_visa", gateway="simulated", business_ref=business_ref,
        requested_at=lab.now_ms,
    )  # fmt: skip


def test_a_full_entry_is_kept_35_days_then_a_small_one(lab: OneTask) -> None:
    """Swept inside a unit of its user; what replays and late refunds need is left."""
    lab.send(payment(lab, business_ref="sub:1"))
    full = lab.entry("u1", "p1")
    lab.wait(FULL_S - 1)
    assert (0, full) == (lab.look(), lab.entry("u1", "p1"))
    lab.wait(HOUR_S)
    assert 1 == lab.look()
    small = lab.entry("u1", "p1")

    assert {
        "small": True, "status": "succeeded", "reason": None, "action": "charge", "product": "gift",
        "gateway": "simulated", "gateway_account": "acct_scripted", "gateway_ref": "ch_scripted_1",
        "amount_minor": 500,
        "currency": "USD", "refunded_minor": 0, "reserved_minor": 0, "business_ref": "sub:1",
        "conflicts_with": None, "attempts": 1, "processed_at": full["processed_at"],
        "fingerprint": full["fingerprint"], "fingerprint_version": 1,
    } == small  # fmt: skip
    assert 1 == len(lab.results())


def test_a_table_that_cannot_be_walked_through_ends_its_task(
    lab: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next task epoch rebuilds it; else a timer would take what it can read for all there is."""

    def damaged(store: MemoryStore, last: bytes) -> None:
        raise StoreFailed("Corruption")

    monkeypatch.setattr(MemoryStore, "check_end", damaged)
    assert 0 == lab.loop.run_until_complete(lab.sweeping.run_once(lab.now_ms))
    assert isinstance(lab.assigned.failure, StoreFailed)


def test_a_late_replay_is_answered_from_the_small_entry(lab: OneTask, gateway: AskedGateway) -> None:
    """A year later: the stored outcome, no call; another amount is a mismatch; the guard still holds."""
    event = payment(lab, business_ref="sub:1")
    lab.send(event)
    lab.wait(FULL_S + HOUR_S)
    lab.look()
    lab.wait(365 * DAY_S)
    (again,), (other,) = lab.send(event), lab.send(replace(event, amount_minor=501))
    (second,) = lab.send(payment(lab, "p2", "sub:1"))

    assert ("succeeded", True, "ch_scripted_1") == (again["status"], again["replayed"], again["gateway_ref"])
    assert "idempotency_mismatch" == other["reason"]
    assert ("duplicate_business_ref", "p1") == (second["reason"], second["conflicts_with"])
    assert 1 == len(gateway.calls)


def test_a_small_entry_is_gone_after_13_months(lab: OneTask, gateway: AskedGateway) -> None:
    """With its business_ref; an event that old is expired, never charged again."""
    event = payment(lab, business_ref="sub:1")
    lab.send(event)
    for seconds in (FULL_S + HOUR_S, SMALL_S):
        lab.wait(seconds)
        assert 1 == lab.look()
    (late,) = lab.send(event)
    (second,) = lab.send(payment(lab, "p2", "sub:1"))

    assert (None, "expired") == (lab.entry("u1", "p1"), late["reason"])
    assert ("succeeded", 2) == (second["status"], len(gateway.calls))


def test_a_business_ref_that_another_charge_holds_stays(lab: OneTask, gateway: AskedGateway) -> None:
    """The end of the first one's retention takes nothing from the second."""
    lab.send(payment(lab, business_ref="sub:1"))
    lab.put("payments", "u1/p1", lab.entry("u1", "p1") | {"refunded_minor": 500})
    lab.wait(DAY_S)
    lab.send(payment(lab, "p2", "sub:1"))
    lab.wait(FULL_S)
    lab.look()
    lab.wait(SMALL_S - DAY_S + HOUR_S)
    lab.look()

    assert (None, True) == (lab.entry("u1", "p1"), lab.entry("u1", "p2")["small"])
    assert {"payment_id": "p2"} == lab.row("business_refs", "u1/sub:1")


def test_open_payments_are_never_swept(lab: OneTask, gateway: AskedGateway) -> None:
    """Nor is a charge on which an open refund holds money."""
    gateway.script = [Ambiguous("reset")] * 99
    lab.send(payment(lab, "p1"))
    gateway.script = []
    lab.send(payment(lab, "p2"))
    lab.put("payments", "u1/p1", lab.entry("u1", "p1") | {"status": "parked", "next_try_at": None})
    lab.put("open_payments", "u1/p1", lab.row("open_payments", "u1/p1") | {"next_try_at": None})
    lab.put("payments", "u1/p2", lab.entry("u1", "p2") | {"reserved_minor": 1})
    lab.wait(FULL_S + SMALL_S + DAY_S)

    assert 0 == lab.look()
    lab.trigger("u1", "p1")
    lab.trigger("u1", "p2")
    assert ["parked", "succeeded"] == [lab.entry("u1", one)["status"] for one in ("p1", "p2")]


def test_the_walk_goes_through_all_entries_in_small_steps(lab: OneTask) -> None:
    """A look at a bounded number a second; a new round begins an hour after the last one began."""
    looked_at = RetentionTimer.rows_per_look
    count = 2 * looked_at + 1
    lab.send(*(payment(lab, f"p{number}") for number in range(count)))
    lab.wait(FULL_S + 60)
    looks = [lab.look() for _ in range(4)]
    assert [looked_at, looked_at, 1, 0] == looks
    assert all(lab.entry("u1", f"p{number}")["small"] for number in range(count))
    lab.send(payment(lab, "fresh"))
    lab.wait(FULL_S)

    assert 0 == sum(lab.look() for _ in range(3)) - 1
