"""Subscriptions on a real Kafka with real workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from support.producers import idempotent_producer
from support.system import CALM, System, payment
from support.topics import committed, wait_settled
from support.until import until
from support.web_client import get

from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.settings import COMMANDS, METRICS, PAYMENTS
from streamsocial_billing.subscriptions.renewal import renewal_id

SUBSCRIPTIONS = 120
DUE_IN_S = 10.0


def subscriptions(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `streamsocial-billing subscriptions ...` as an operator does."""
    program = Path(sys.executable).with_name("streamsocial-billing")
    environ = {**os.environ, **system.worker.environment}
    return subprocess.run(
        [str(program), "subscriptions", *arguments], capture_output=True, text=True, env=environ, check=False
    )


def order_many(system: System, count: int, starts_at: int) -> None:
    """A subscription for each of `count` users, all due at one moment."""
    producer = idempotent_producer(system.settings.bootstrap)
    for number in range(count):
        user_id = f"user-{number}"
        details = {"subscription_id": "s1", "amount_minor": 500, "currency": "EUR", "starts_at": starts_at,
                   "payment_method": "pm_card_visa", "gateway": "simulated"}  # fmt: skip
        # an order of a moment after `starts_at` would begin with the period after
        ordered_at = min(starts_at, int(time.time() * 1000))
        order = Command("subscribe", "ann", "because", ordered_at, user_id, details)
        producer.produce(system.settings.topic(COMMANDS), order.to_bytes(), user_id.encode())
    assert 0 == producer.flush(60)
    producer.close()


def rows(system: System) -> dict[str, Any]:
    """The committed content of the table."""
    log, topic = CommittedLog(system.settings), system.settings.changelog("subscriptions")
    wait_settled(system.settings, topic)
    ends = log.ends((topic, p) for p in range(system.settings.partitions))
    return {(m.key() or b"").decode(): orjson.loads(m.value() or b"null") for m in log.read(ends)}


def wait_for_rows(system: System, count: int) -> None:
    """Return when so many subscriptions are committed."""
    deadline = time.monotonic() + 120
    while len(rows(system)) < count:
        assert time.monotonic() < deadline, system.worker.tail()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_subscriptions_due_at_once_are_sent_once_each_though_workers_die_amid_it(
    point: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """N due at one moment, three deaths by SIGKILL: N events, N `requested` metrics, N charges."""
    with System(broker, tmp_path, unique_name) as system:
        began = time.monotonic()
        system.start()
        # ordered, and the worker dead, before they are due: a slow machine gets the time that it needs
        due_in_s = max(DUE_IN_S, 4 * (time.monotonic() - began))
        starts_at = int((time.time() + due_in_s) * 1000)
        order_many(system, SUBSCRIPTIONS, starts_at)
        wait_for_rows(system, SUBSCRIPTIONS)
        system.worker.kill()
        for at in (3, 2):
            system.worker.start(crash_at=(point, at))
            system.worker.wait_killed()
        system.worker.start()
        system.sent = SUBSCRIPTIONS
        system.wait_answered()
        system.check()
        events = [orjson.loads(one.value() or b"") for one in committed(system.settings, PAYMENTS)]
        month = time.strftime("%Y-%m", time.gmtime(starts_at / 1000))
        users = [f"user-{number}" for number in range(SUBSCRIPTIONS)]
        expected = {renewal_id(user_id, f"sub:s1:{month}", 1): 1 for user_id in users}
        assert expected == Counter(one["payment_id"] for one in events)
        metrics = [orjson.loads(one.value() or b"") for one in committed(system.settings, METRICS)]
        told = Counter(one["status"] for one in metrics)
        told.pop("unknown", 0)  # of a call that a busy machine did not finish in its time; made again
        assert {"requested": SUBSCRIPTIONS, "succeeded": SUBSCRIPTIONS} == told
        assert {("active", 1)} == {(row["state"], row["period"]) for row in rows(system).values()}


WHO = ("--actor", "ann", "--reason", "a test", "--wait", "100")
TERMS = ("--amount-minor", "999", "--currency", "USD", "--payment-method")


@pytest.mark.timeout(600)
def test_an_operator_orders_looks_changes_cancels(broker: str, tmp_path: Path, unique_name: str) -> None:
    """Each order says what became of it and of its charge; the view and `list` say the same."""
    with System(broker, tmp_path, unique_name, **CALM) as system:
        system.start()
        added = subscriptions(system, "add", "alice", "42", *TERMS, "pm_card_insufficient_funds", *WHO)
        assert (1, "", 1) == (added.returncode, added.stdout, added.stderr.count("\n"))
        assert added.stderr.startswith(
            "subscription alice/42 added; charge of 9.99 USD declined: insufficient funds; the subscription "
            "is past due, next try at 2"
        )
        [line] = subscriptions(system, "list", "alice").stdout.splitlines()
        listed = orjson.loads(line)
        assert ("42", "past_due", "insufficient_funds") == (
            listed.pop("subscription_id"), listed["state"], listed["reason"],
        )  # fmt: skip
        page = "/users/alice/subscriptions"  # of a table that is stored after Kafka's readers see it
        until(lambda: "past_due" in str(get(system.worker.web_port, page).body), "it is on its page")
        answer = get(system.worker.web_port, page)
        shown = answer.json()["42"]
        assert (200, listed) == (answer.status, {name: shown[name] for name in listed})
        assert 404 == get(system.worker.web_port, "/users/alic/subscriptions").status
        changed = subscriptions(system, "change", "alice", "42", "--payment-method", "pm_card_visa", *WHO)
        assert (0, "", "payment method of subscription alice/42 changed; charge of 9.99 USD succeeded\n") == (
            changed.returncode, changed.stderr, changed.stdout,
        )  # fmt: skip
        cancelled = subscriptions(system, "cancel", "alice", "42", *WHO)
        assert (0, "") == (cancelled.returncode, cancelled.stderr)
        assert cancelled.stdout.startswith("subscription alice/42 cancelled; ends at 2")
        [row] = rows(system).values()
        assert ("cancelled", 1, None) == (row["state"], row["period"], row["next_at"])
        system.stop_workers()
        system.check_disk()


@pytest.mark.timeout(600)
def test_a_refused_order_is_named_with_its_reason_and_ends_with_1(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """A mistyped id, other terms, a change of a cancelled one: nothing changes, no dead letter is written."""
    with System(broker, tmp_path, unique_name, **CALM) as system:
        system.start()
        added = subscriptions(system, "add", "gina", "42", *TERMS, "pm_card_visa", *WHO)
        assert (0, "subscription gina/42 added; charge of 9.99 USD succeeded\n", "") == (
            added.returncode, added.stdout, added.stderr,
        )  # fmt: skip
        same = subscriptions(system, "add", "gina", "42", *TERMS, "pm_card_visa", *WHO)
        assert "exists with these terms; it is active" in same.stdout
        subscriptions(system, "cancel", "gina", "42", *WHO)
        other = ("--amount-minor", "1", "--currency", "USD", "--payment-method", "pm_card_visa")
        refused = {
            ("cancel", "gina", "nope"): "gina has no subscription nope",
            ("add", "gina", "42", *other): "subscription gina/42 exists with other terms",
            ("change", "gina", "42", "--amount-minor", "5"):
                "subscription gina/42 is cancelled; add a new one, under a new id",
        }  # fmt: skip
        before = rows(system)
        for arguments, why in refused.items():
            done = subscriptions(system, *arguments, *WHO)
            assert (1, "", f"refused: {why}\n") == (done.returncode, done.stdout, done.stderr)
        bad = subscriptions(system, "add", "gina", "4111111111111111", *TERMS, "pm_card_visa", *WHO)
        assert (1, 1, True) == (bad.returncode, bad.stderr.count("\n"), "card_number" in bad.stderr)
        assert (before, []) == (rows(system), system.dead_letters.records)
        system.worker.kill()
        late = subscriptions(system, "cancel", "gina", "42", *WHO, "--wait", "1")
        assert (3, "", True) == (late.returncode, late.stdout, "not answered yet" in late.stderr)
        script = subscriptions(system, "cancel", "gina", "42", *WHO, "--no-wait")
        assert (0, 33, "") == (script.returncode, len(script.stdout), script.stderr)


@pytest.mark.timeout(600)
def test_an_order_whose_charge_is_open_says_so(broker: str, tmp_path: Path, unique_name: str) -> None:
    """The gateway is stopped: added, exit code 3, the payment named as unknown."""
    with System(broker, tmp_path, unique_name) as system:
        system.start()
        environ = {**os.environ, **system.worker.environment}
        stop = ("gateways", "stop", "simulated", *WHO)
        subprocess.run([*system.worker.program, *stop], env=environ, check=True, capture_output=True)
        added = subscriptions(system, "add", "hugo", "42", *TERMS, "pm_card_visa", *WHO, "--wait", "25")
        assert (3, "") == (added.returncode, added.stdout)
        assert added.stderr.startswith("subscription hugo/42 added; its payment r1_")
        assert added.stderr.endswith(" is unknown after 25 s\n")


@pytest.mark.timeout(600)
def test_a_deployment_of_the_release_before_starts(broker: str, tmp_path: Path, unique_name: str) -> None:
    """It has offsets, tables, folders, but no table of subscriptions: the changelog is made, all goes on."""
    with System(broker, tmp_path, unique_name) as system:
        system.start()
        system.submit([payment("user-1", "pay-1")])
        system.wait_answered()
        system.stop_workers()
        changelog = system.settings.changelog("subscriptions")
        admin = AdminClient(system.settings.client_config() | {"log_level": 0})
        admin.delete_topics([changelog])[changelog].result(60)
        folders = [one for one in system.worker.datadir.rglob("*subscriptions*") if one.is_dir()]
        assert folders
        for folder in folders:
            shutil.rmtree(folder)
        system.worker.start()
        system.worker.wait_ready()
        order_many(system, 1, int(time.time() * 1000))
        system.submit([payment("user-1", "pay-1"), payment("user-1", "pay-2")])
        system.sent += 1
        system.check()
        assert 1 == len(rows(system))
