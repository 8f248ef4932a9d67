"""`audit`, `/audit` and the metrics count the same things under the same names, on one real system."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families
from support.system import CALM, System, payment
from support.topics import wait_settled
from support.web_client import get

from streamsocial_billing.settings import COMMANDS, PAYMENTS

PARTITIONS = 4
EXPECTED = {
    "charged": 6, "refunded": 1, "declined": 2, "failed": 0, "rejected": 1, "open": 3, "repeats": 3,
    "dead_letters": 2,
}  # fmt: skip
LONG = ("--wait", "100")
OTHERS = {"unknown": 3, "parked": 0, "dead_letters_elsewhere": 1, "external": 0}


def ordered(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console script against the system."""
    return subprocess.run(
        [*system.worker.program, *arguments], env=system.worker.environment, capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip


def audit_of(system: System, *options: str) -> tuple[int, Any]:
    """Exit code, JSON of the command."""
    done = ordered(system, "audit", "--wait", "1", "--json", *options)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def some_of_each(system: System) -> None:
    """Everything that an event can become, then a stopped gateway with payments that wait for it."""
    charges = [payment(f"user-{n}", f"pay-{n}", amount_minor=700) for n in range(6)]
    declined = [payment("user-1", f"no-{n}", payment_method="pm_card_declined") for n in range(2)]
    system.submit([*charges, *declined, payment("user-2", "away", gateway="paypal")])
    system.wait_answered()
    back = {"action": "refund", "refund_of": "pay-0", "amount_minor": 300}
    system.submit([payment("user-0", "back-1", **back), charges[0], declined[0]])
    system.append([(b"user-1", b"no json", 0), (b"user-1", None, 1)])
    producer = Producer(system.settings.client_config() | {"enable.idempotence": True})
    producer.produce(system.settings.topic(COMMANDS), b"{}", key=b"user-1", partition=0)
    assert 0 == producer.flush(60)
    system.wait_answered(system.sent + 1)  # the command's dead letter, too
    stopped = ordered(system, "gateways", "stop", "simulated", "--reason", "their incident", *LONG)
    assert 0 == stopped.returncode, stopped.stderr
    waiting = [payment(f"user-{n}", f"open-{n}") for n in range(3)]
    system.submit([*waiting, waiting[0]])
    system.wait_answered(system.sent + 1)


def page_of(system: System, true: Callable[[Any], bool], within_s: float = 120) -> Any:
    """`/audit` of all workers once it is as the test needs it, its rows those of after the call."""
    deadline, began = time.monotonic() + within_s, time.time() * 1000
    while time.monotonic() < deadline:
        page = get(system.worker.web_port, "/audit?workers=all").json()
        rows = all(task["rows_at"] >= began for task in page["tasks"])
        if page["here"] == list(range(PARTITIONS)) and rows and true(page):
            return page
        time.sleep(0.1)
    raise AssertionError(page)


def metrics_of(system: System) -> Counter[str]:
    """The metrics of all workers by the names of the outcomes."""
    found: Counter[str] = Counter()
    for worker in system.workers:
        text = get(worker.web_port, "/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "billing_audit_outcomes_total":
                    found[sample.labels["outcome"]] += int(sample.value)
                elif sample.name == "billing_audit_open":
                    found["open"] += int(sample.value)
                    found[sample.labels["status"]] += int(sample.value)
    return found


def test_audit_page_and_metrics_say_the_same_of_the_same_system(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Field by field; nothing differs though payments are open; then a backlog; then all is settled."""
    with System(broker, tmp_path, unique_name, workers=2, partitions=PARTITIONS, **CALM) as system:
        system.start()
        some_of_each(system)
        page = page_of(system, lambda page: page["outcomes"]["handled"] == system.sent)
        code, report = audit_of(system)

        assert (0, True, False, []) == (code, report["ok"], report["settled"], report["problems"])
        assert {"sent": system.sent, "waiting": 0} | EXPECTED | OTHERS == report["outcomes"]
        assert system.sent == sum(EXPECTED.values())
        apart = {name: OTHERS[name] for name in ("dead_letters_elsewhere", "external")}
        assert {"handled": system.sent, "uncounted": 0} | EXPECTED | apart == page["outcomes"]
        assert {"counted": 3, "unknown": 3, "parked": 0} == page["open"]
        assert page["ok"] and 0 == page["payments"]["lost"] == page["payments"]["double"]
        metrics = metrics_of(system)
        expected = EXPECTED | {"uncounted": 0, "unknown": 3, "parked": 0}
        assert expected == {name: metrics[name] for name in expected}
        (group,) = report["open_payments"]
        assert ("simulated", "unknown", "gateway_unavailable: stopped", 3) == (
            group["gateway"], group["status"], group["why"], group["payments"]
        )  # fmt: skip
        assert 3 == audit_of(system, "--require-settled")[0]

        for worker in system.workers:
            assert 0 == worker.stop()
        system.submit([payment("user-1", f"late-{n}") for n in range(5)])
        wait_settled(system.settings, system.settings.topic(PAYMENTS))
        done = ordered(system, "audit", "--wait", "0")
        assert 0 == done.returncode
        assert done.stdout.startswith(
            "nothing differs: 3 payments are open; 5 events wait for a worker; 6 charges, 1 refund, "
            "each exactly once at the gateway; 2 declined; 1 rejected; 3 repeats; 2 dead letters\n"
        ), done.stdout

        for worker in system.workers:
            worker.start()
        for worker in system.workers:
            worker.wait_ready()
        assert 0 == ordered(system, "gateways", "start", "simulated", "--reason", "over", *LONG).returncode
        done = ordered(system, "audit", "--wait", "80", "--require-settled")
        assert (0, True) == (done.returncode, "14 charges, 1 refund, each exactly once" in done.stdout), done
        page = page_of(system, lambda page: page["outcomes"]["handled"] == system.sent)
        assert (14, 0, 0) == tuple(page["outcomes"][name] for name in ("charged", "open", "uncounted"))
