"""Payments by an intent across an upgrade and back: open ones of this release, held by an earlier one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.releases import releases
from support.system import CALM, System, payment
from support.until import until
from support.upgrading import Upgrade

from streamsocial_billing.audit.run import run_audit
from streamsocial_billing.domain.payment_entry import SCHEDULE_S

METHODS = {"auth": "pm_card_authenticationRequired", "slow": "pm_card_processing", "plain": "pm_card_visa"}


@pytest.mark.timeout(900)
def test_payments_that_wait_outlast_an_earlier_release(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """It calls, parks and declines none of them, loses no intent; back here each is charged once."""
    *_, tag = releases()
    events = [payment(f"user-{name}", name, payment_method=method) for name, method in METHODS.items()]
    with System(broker, tmp_path, unique_name, workers=2, **CALM) as system:
        upgrade = Upgrade(system, releases()[tag], tmp_path)

        def handled_by(release: str) -> None:
            for worker in system.workers:
                upgrade.start(worker, release)
            system.submit(events)
            system.wait_answered()

        def last(name: str) -> dict[str, Any]:
            return system.results_of(name)[-1]

        handled_by("new")
        intents = {name: last(name)["gateway_ref"] for name in ("auth", "slow")}
        system.stop_workers()
        handled_by("old")
        time.sleep(SCHEDULE_S[0] + 4)  # what the earlier release takes for due, it has tried
        until(lambda: 0 == sum(system.lag().values()), "all triggers are handled")
        assert {"auth": "unknown", "slow": "unknown", "plain": "succeeded"} == {
            name: last(name)["status"] for name in METHODS
        }
        assert [] == [worker.name for worker in system.workers if "parked" in worker.tail(500)]
        system.stop_workers()

        for intent in intents.values():
            system.gateway.post(f"/_intents/{intent}/confirm", {})
        handled_by("new")
        for name, intent in intents.items():
            until(lambda name=name: "succeeded" == last(name)["status"], f"{name} is settled")  # type: ignore[misc]
            settled = [one for one in system.results_of(name) if one["resolves"]]
            assert [("succeeded", intent)] == [(one["status"], one["gateway_ref"]) for one in settled]
        report = run_audit(system.settings, wait_s=90)
        assert () == report.problems, "\n".join(map(str, report.problems))
        listed = system.gateway.get("/v1/charges")["data"]
        assert 3 == len(listed) == len({one["metadata"]["payment_id"] for one in listed})
