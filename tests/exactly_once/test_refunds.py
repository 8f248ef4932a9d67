"""Refunds on a real Kafka: a worker that dies between call and commit gives back once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.producers import idempotent_producer
from support.system import STEADY, System, payment

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.settings import GATEWAY_EVENTS

USERS = [f"user-{number}" for number in range(12)]


def refund(user_id: str, payment_id: str, amount: int) -> PaymentEvent:
    """A part of the user's charge of 9.99 EUR."""
    about = {"action": "refund", "refund_of": "c1", "amount_minor": amount}
    return payment(user_id, payment_id, **about)


def given_back(system: System) -> list[dict[str, Any]]:
    """The gateway's own list of refunds."""
    body = system.gateway.get("/v1/refunds?limit=1000")
    rows = body["data"]
    assert isinstance(rows, list) and not body["has_more"]
    return rows


def charged(system: System) -> None:
    """Every user has paid 9.99 EUR."""
    system.start()
    system.submit([payment(user, "c1") for user in USERS])
    system.wait_answered()
    assert 0 == system.worker.stop()


def notify(system: System, rows: list[dict[str, Any]]) -> None:
    """Append what the gateway would tell of its refunds, each twice."""
    producer = idempotent_producer(system.settings.bootstrap)
    for row in [*rows, *rows]:
        about = row["metadata"]
        report = GatewayEvent(
            event_id=f"evt_{row['id']}_{row['status']}", gateway="simulated", kind="refund",
            status="declined" if row["status"] == "failed" else row["status"], reason=row["failure_reason"],
            gateway_ref=row["id"], charge_ref=row["charge"], ref=about["ref"], user_id=about["user_id"],
            payment_id=about["payment_id"], charge_id="c1", amount_minor=row["amount"],
            currency=row["currency"], occurred_at=int(time.time() * 1000),
        )  # fmt: skip
        topic = system.settings.topic(GATEWAY_EVENTS)
        producer.produce(topic, report.to_bytes(), key=report.user_id.encode())
    assert 0 == producer.flush(60)


def came_back(system: System) -> Counter[str]:
    """By user, how many refunds failed after they had succeeded."""
    return Counter(one["user_id"] for one in system.all_results() if one["reason"] == "refund_failed")


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_worker_that_dies_between_refund_and_commit_refunds_once(
    point: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Twice in a row; each refund is once in the gateway's list, the third start finds all books agreeing."""
    with System(broker, tmp_path, unique_name, **STEADY) as system:
        charged(system)
        system.submit([refund(user, "r1", 400) for user in USERS])
        system.worker.start(crash_at=(point, 1))
        system.worker.wait_killed()
        called = {row["metadata"]["ref"] for row in given_back(system)}
        assert called, "the worker died before it called"
        # another 4.00 fits, then 4.00 more do not
        system.submit([refund(user, name, 400) for user in USERS for name in ("r2", "r3")])
        system.worker.start(crash_at=(point, 2))
        system.worker.wait_killed()
        system.worker.start()
        report = system.check()
        rows = given_back(system)
        refs = Counter(row["metadata"]["ref"] for row in rows)
        wanted = {gateway_key(refund(user, name, 400)) for user in USERS for name in ("r1", "r2")}
        assert dict.fromkeys(wanted, 1) == dict(refs)
        assert called <= refs.keys()
        assert {"EUR": (800 * len(USERS),) * 3} == report.refunded
        beyond = Counter((one["status"], one["reason"]) for one in settled(system, "r3"))
        assert {("rejected", "refund_exceeds_charge"): len(USERS)} == dict(beyond)


def test_what_the_gateway_tells_of_a_lost_refund_is_adopted(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Told while the worker was dead, before or after the refund's own event is handled again: once."""
    with System(broker, tmp_path, unique_name, **STEADY) as system:
        charged(system)
        system.submit([refund(user, "r1", 400) for user in USERS])
        system.worker.start(crash_at=("before_commit", 1))
        system.worker.wait_killed()
        notify(system, given_back(system))
        system.worker.start()
        report = system.check()
        assert {"EUR": (400 * len(USERS),) * 3} == report.refunded
        assert {"succeeded": len(USERS)} == report.refunds


def settled(system: System, payment_id: str) -> list[dict[str, Any]]:
    """The final record of this payment of each user."""
    return [one for one in system.results_of(payment_id) if one["status"] != "unknown"]


@pytest.mark.slow
def test_refunds_that_fail_later_are_booked_once_whatever_dies(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Told twice, before and after their success, amid two kills: the next refund works, all books agree."""
    with System(broker, tmp_path, unique_name, **STEADY) as system:
        charged(system)
        system.submit([refund(user, "r1", 999) for user in USERS])
        system.worker.start()
        system.wait_answered()
        assert 0 == system.worker.stop()
        succeeded = given_back(system)
        for row in succeeded:
            system.gateway.post(f"/_refunds/{row['id']}/fail", {"reason": "expired_or_canceled_card"})
        failed = given_back(system)
        assert {"failed"} == {row["status"] for row in failed}
        notify(system, failed)
        notify(system, succeeded)
        system.worker.start(crash_at=("before_commit", 1))
        system.worker.wait_killed()
        system.worker.start(crash_at=("after_commit", 1))
        system.worker.wait_killed()
        system.worker.start()
        assert system.results.wait(lambda: set(USERS) <= set(came_back(system))), came_back(system)
        system.submit([refund(user, name, 999) for user in USERS for name in ("r2", "r3")])
        system.check()

        assert dict.fromkeys(USERS, 1) == dict(came_back(system))
        assert {"succeeded"} == {one["status"] for one in system.results_of("r2")}
        assert {"refund_exceeds_charge"} == {one["reason"] for one in system.results_of("r3")}
