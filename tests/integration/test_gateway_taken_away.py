"""A gateway that open payments wait for is no longer set up: the worker says so, and goes on."""

from __future__ import annotations

import time
from pathlib import Path

from support.status import status_with
from support.system import System, free_port, payment
from support.web_client import get

from streamsocial_billing.web.status.overview import LOOK_EVERY_S

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


def test_an_upgrade_that_takes_a_gateway_away_stops_no_worker(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The open payment waits with an alarm on every page; the worker looks on, and lives."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        system.start()
        system.gateway.stop()
        system.submit([payment("alice", "p1")])
        system.wait_answered()
        assert "unknown" == system.results_of("p1")[0]["status"]
        assert 0 == system.worker.stop()

        system.worker.environment |= {
            "BILLING_GATEWAY_URL": "", "BILLING_STRIPE_API_KEY": "sk_test_alone",
            "BILLING_STRIPE_ACCOUNT": "acct_default",
            "BILLING_STRIPE_URL": f"http://127.0.0.1:{free_port()}",
        }  # fmt: skip
        system.worker.start()
        system.worker.wait_for_line("gateway simulated is not set up here")
        seen = status_with(system, "gateway_not_set_up")
        assert "not_configured" == {one["name"]: one["state"] for one in seen["gateways"]}["simulated"]
        page = get(system.worker.web_port, "/", Accept=BROWSER)
        assert 200 == page.status
        assert b"Gateway simulated is not set up" in page.body
        while get(system.worker.web_port, "/status").json()["at"] < seen["at"] + 3000 * LOOK_EVERY_S:
            time.sleep(0.5)
        assert system.worker.running
        assert 0 == system.worker.stop()
