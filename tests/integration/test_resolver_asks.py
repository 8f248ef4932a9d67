"""The resolver against the gateway simulator, on a real Kafka."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from support.system import System, payment

from processes import ROOT


def settled_in(system: System) -> list[dict[str, Any]]:
    """The results that end an open payment."""
    return [one for one in system.all_results() if one["resolves"]]


def test_unknown_payments_past_the_key_window_are_asked_for_and_adopted(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Charged, replies lost, then SIGKILL amid resolving: each is found, adopted, never called again."""
    events = [payment(f"user-{number}", f"pay-{number}") for number in range(40)]
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        worker = system.worker
        worker.program = (sys.executable, "-P", str(ROOT / "tests/support/asking_worker.py"))
        system.start()
        system.gateway.faults(drop_after_charge=1.0, seed=1)
        system.submit(events)
        system.wait_answered()
        # a machine that is busy settles the first while the last are still called
        assert {"unknown"} == {one["status"] for one in system.all_results() if not one["resolves"]}
        calls = [system.calls(event) for event in events]
        assert all(calls)
        system.gateway.faults(latency_ms=100)  # so that the kill hits questions under way
        assert system.results.wait(lambda: any(one["resolves"] for one in system.all_results()))
        worker.kill()
        system.start()
        report = system.check()
        system.results.wait(lambda: len(settled_in(system)) == 40)
        settled = settled_in(system)
        assert [("succeeded", None)] * 40 == [(one["status"], one["reason"]) for one in settled]
        assert all(one["gateway_ref"] for one in settled)
        assert calls == [system.calls(event) for event in events]
        assert 0 == report.open
