"""Production with Stripe alone: no simulator is set up, nothing waits for one, nothing asks for one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from support.stripe_alone import StripeAlone
from support.system import CALM, System, payment
from support.until import until
from support.web_client import get, post

from faust_exactly_once import partition_of
from streamsocial_billing.settings import RESULTS

FIELDS = {
    "user_id": "alice", "product": "gift", "amount_minor": 700, "currency": "EUR",
    "payment_method": "tok_visa",
}  # fmt: skip


def command(system: System, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command of ours in the worker's environment."""
    ours = str(Path(sys.executable).with_name("streamsocial-billing"))
    return subprocess.run(
        [ours, f"--datadir={system.folder / 'client'}", *words], cwd=system.folder, input=stdin, text=True,
        env=system.worker.environment, capture_output=True, check=False, timeout=200,
    )  # fmt: skip


def earlier_result(system: System) -> bytes:
    """A result of the time when the simulator was tried."""
    return orjson.dumps({
        "payment_id": "trial-1", "user_id": "bob", "action": "charge", "product": "gift", "reason": None,
        "status": "succeeded", "replayed": False, "amount_minor": 300, "currency": "EUR", "attempt": 1,
        "gateway": "simulated", "gateway_ref": "ch_trial", "requested_at": 1, "resolves": False,
        "processed_at": int(time.time() * 1000), "business_ref": None, "refund_of": None,
        "source": {"topic": system.settings.topic("payments"), "partition": 0, "offset": 0},
    })  # fmt: skip


def test_a_worker_with_stripe_alone_needs_no_simulator(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """A payment without gateway is charged at Stripe, one for the simulator is rejected.

    `audit` and `reconcile` work; the latter ended with 2, "gateway simulated: the list could not be read".
    """
    only_stripe: dict[str, Any] = {
        "BILLING_GATEWAY_URL": "", "BILLING_STRIPE_API_KEY": "sk_test_alone",
        "BILLING_STRIPE_ACCOUNT": "acct_default", "BILLING_MATCH_WINDOW_S": 1, **CALM,
    }  # fmt: skip
    with StripeAlone() as stripe, System(
        broker, tmp_path, unique_name, partitions=2, BILLING_STRIPE_URL=stripe.url, **only_stripe
    ) as system:
        system.gateway.stop()
        system.start()
        said = system.worker.wait_for_line("gateways that take part")
        assert "take part: stripe; take no part: paypal (BILLING_PAYPAL_CLIENT_ID is not set), " in said
        assert "simulated (BILLING_GATEWAY_URL is not set); a payment that names none goes to stripe" in said

        body = orjson.dumps(FIELDS)
        taken = post(system.worker.web_port, "/payments", body, Idempotency_Key="by-http")
        assert (202, "stripe") == (taken.status, taken.json()["gateway"])
        line = json.dumps(FIELDS | {"payment_id": "by-submit"})
        assert "1 accepted, 0 refused" in command(system, "submit", "-", stdin=line).stdout
        system.sent += 2
        system.submit([payment("alice", "to-nobody", gateway="simulated")])
        system.wait_answered()
        for name in ("by-http", "by-submit"):
            (result,) = system.results_of(name)
            assert ("succeeded", "stripe") == (result["status"], result["gateway"])
        (refused,) = system.results_of("to-nobody")
        assert ("rejected", "gateway_not_configured") == (refused["status"], refused["reason"])
        assert 2 == len(stripe.charges)
        assert {"stripe": "closed"} == get(system.worker.web_port, "/ready").json()["gateways"]

        audit = command(system, "audit", "--json")
        assert (0, "") == (audit.returncode, audit.stderr)
        report = json.loads(audit.stdout)
        assert (True, [], 2) == (report["ok"], report["listed"], report["outcomes"]["charged"])
        assert "not compared with any gateway" in command(system, "audit").stdout

        out = tmp_path / "reconciliation"
        clean = command(system, "reconcile", "--output", str(out), "--as-of", "now")
        assert (0, "") == (clean.returncode, clean.stderr), clean.stdout
        assert "clean;" in clean.stdout
        assert [] == json.loads((out / "summary.json").read_text())["not_checked"]

        names_what_it_cannot_check(system, out)
        system.stop_workers()


def names_what_it_cannot_check(system: System, out: Path) -> None:
    """What the books have of a gateway that is not set up is neither dropped nor a break."""
    from confluent_kafka import Producer

    producer = Producer(system.settings.client_config() | {"enable.idempotence": True})
    partition = partition_of(b"bob", system.settings.partitions)
    producer.produce(system.settings.topic(RESULTS), earlier_result(system), b"bob", partition)
    assert 0 == producer.flush(60)
    producer.close()
    done = command(system, "reconcile", "--output", str(out), "--as-of", "now")
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    named = "not checked: simulated is not set up here (1 payment in our books, 3.00 EUR charged)"
    assert named in done.stdout
    assert "clean, as far as it was checked" in done.stdout
    told = {"gateway": "simulated", "payments": 1, "lines": 0, "money": {"EUR": 300}}
    assert [told] == json.loads((out / "summary.json").read_text())["not_checked"]
    assert "simulated is not set up here" in (out / "report.html").read_text()

    def shown() -> Any:  # read on when it is asked for, not more often than every few seconds
        return get(system.worker.web_port, "/reconciliation").json()["run"]["not_checked"]

    until(lambda: [told] == shown(), f"{told} on the page")
