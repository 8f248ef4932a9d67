"""A gateway that drops, hangs, lies or is gone: every payment ends final, charged once."""

from __future__ import annotations

from pathlib import Path

from support.system import Payments, Stream, System, statuses


def test_under_gateway_faults_every_payment_ends_final_and_charged_once(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Unknown first results get one settling record by the trigger; a re-sent event settles nothing."""
    payments = Payments(seed=5)
    with System(broker, tmp_path, unique_name) as system:
        system.start()
        system.gateway.faults(
            drop_after_charge=0.12, timeout=0.12, conflict=0.12, error_before=0.12, bad_body=0.12,
            timeout_ms=4000, seed=5,
        )  # fmt: skip
        events = payments.take(250)
        system.submit(events)
        system.wait_answered()
        unknown = {one["payment_id"] for one in system.all_results() if one["status"] == "unknown"}
        assert len(unknown) >= 5
        system.submit([event for event in payments.made if event.payment_id in unknown])
        system.wait_answered()
        faults = system.gateway.get("/_stats")["faults"]
        assert isinstance(faults, dict)
        assert {"drop_after_charge", "timeout", "conflict", "error_before", "bad_body"} == faults.keys()
        system.gateway.faults()
        report = system.check()
        settled = {one["payment_id"] for one in system.all_results() if one["resolves"]}
        assert unknown <= settled
        assert 0 == report.open


def test_a_gateway_that_is_gone_for_a_while_costs_nothing(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """SIGKILL of the gateway under load, back on the same ledger: nothing lost, nothing charged twice."""
    with System(broker, tmp_path, unique_name) as system:
        system.start()
        system.gateway.faults(latency_ms=20)
        payments = Payments(seed=6)
        # so many that the stream has not come to its end by then, however late this thread goes on
        with Stream(system, payments, chunk=20, ahead=100, most=10_000):
            system.wait_answered(200)
            system.gateway.kill()
            assert system.results.wait(lambda: statuses(system.all_results())["unknown", False, False] >= 50)
            system.gateway.start()
        system.submit(payments.take(200))
        system.wait_answered()
        report = system.check()
        counts = statuses(system.all_results())
        assert counts["unknown", False, False] >= 50
        assert 0 == report.open
        assert 0 == counts["failed", False, False] + counts["failed", False, True]
