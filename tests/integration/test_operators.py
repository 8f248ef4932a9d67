"""What people order on the command line, on a real Kafka with real workers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from support.beside_us import charge_beside_us
from support.system import CALM, System, payment, statuses
from support.until import until

LONG = ("--wait", "100")


def ordered(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console script against the system."""
    return subprocess.run(
        [*system.worker.program, *arguments], env=system.worker.environment, capture_output=True, text=True,
        check=False, timeout=150,
    )  # fmt: skip


def wait_resolved(system: System, count: int) -> list[dict[str, Any]]:
    """The results that settled a payment, once so many were read: an answer may be seen before them."""

    def found() -> list[dict[str, Any]]:
        return [one for one in system.all_results() if one["resolves"]]

    assert system.results.wait(lambda: len(found()) >= count)
    return found()


def test_a_stopped_gateway_gets_no_call_whatever_restarts_until_it_is_started(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Stopped, paid, killed, started elsewhere: no call. Then started: everything is charged once."""
    events = [payment(f"user-{number}", f"pay-{number}") for number in range(40)]
    with System(broker, tmp_path, unique_name, workers=2) as system:
        system.start()
        stopped = ordered(system, "gateways", "stop", "simulated", "--reason", "their incident 4711", *LONG)
        assert (0, "simulated is stopped (4 of 4 tasks)\n") == (stopped.returncode, stopped.stdout)
        system.submit(events[:20])
        system.wait_answered()
        for worker in system.workers:
            worker.kill()
        system.workers[0].forget_local_state()
        system.submit(events[20:])
        system.start()
        system.wait_answered()

        assert {("unknown", False, False): 40} == dict(statuses(system.all_results()))
        assert 0 == sum(system.calls(event) for event in events)
        bob = ("--reason", "me too", "--actor", "bob", *LONG)
        again = ordered(system, "gateways", "stop", "simulated", *bob)
        assert (0, "") == (again.returncode, again.stderr)
        assert "simulated was already stopped, at 2" in again.stdout
        assert "their incident 4711 (4 of 4 tasks)" in again.stdout
        listed = ordered(system, "gateways").stdout
        assert "their incident 4711 (4 of 4 tasks)" in listed
        assert " by bob: me too\n" in listed
        assert "stripe: not stopped; not set up in this environment\n" in listed

        started = ordered(system, "gateways", "start", "simulated", "--reason", "over", *LONG)
        assert (0, "simulated is started (4 of 4 tasks)\n") == (started.returncode, started.stdout)
        system.check()
        settled = wait_resolved(system, 40)
        assert {("succeeded", False, True): 40} == dict(statuses(settled))


def test_a_parked_payment_is_settled_by_hand_as_the_gateway_says(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Refused with the reason where the gateway says something else; done where it agrees; then final."""
    ours, other = payment("user-1", "pay-1"), payment("user-2", "pay-2")
    with System(broker, tmp_path, unique_name, partitions=2, **CALM) as system:
        system.start()
        ours_ref = charge_beside_us(system, ours)
        charge_beside_us(system, other, amount=1)
        system.submit([ours, other])
        system.wait_answered()
        assert {("parked", False, False): 2} == dict(statuses(system.all_results()))

        said = ("--actor", "ann", "--reason", "seen there", *LONG)
        succeeded = ("--status", "succeeded", "--gateway-ref")
        wrong = ordered(system, "resolve", "user-1/pay-1", *succeeded, "ch_wrong", *said)
        assert (1, f"refused: under our reference the gateway has {ours_ref}\n") == (
            wrong.returncode, wrong.stderr,
        )  # fmt: skip
        right = ordered(system, "resolve", "user-1/pay-1", *succeeded, ours_ref, *said)
        assert (0, "user-1/pay-1 is settled as succeeded\n") == (right.returncode, right.stdout)
        failed = ordered(system, "resolve", "user-2/pay-2", "--status", "failed", *said)
        assert (0, "user-2/pay-2 is settled as failed\n") == (failed.returncode, failed.stdout)
        again = ordered(system, "resolve", "user-2/pay-2", "--status", "failed", *said)
        assert (1, "refused: it is failed: only a parked payment can be settled by hand\n") == (
            again.returncode, again.stderr,
        )  # fmt: skip
        # of two users, so of two partitions: which one is read first is not told by their order
        assert {ours_ref, None} == {one["gateway_ref"] for one in wait_resolved(system, 2)}


def test_an_order_that_nobody_can_carry_out_yet_stands(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Without a worker the command line ends with 3, and says so; the worker that comes carries it out."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        system.start()
        system.worker.kill()
        event = payment("user-1", "pay-1")
        stop = ("gateways", "stop", "simulated", "--reason", "x")
        lonely = ordered(system, *stop, "--wait", "1")
        assert (3, "", 1) == (lonely.returncode, lonely.stdout, lonely.stderr.count("\n"))
        assert "but answered by 0 of 2 tasks after 1 s: the order stands" in lonely.stderr
        unanswered = ordered(
            system, "resolve", "user-1/pay-1", "--status", "failed", "--reason", "x", "--wait", "1"
        )
        assert (3, "", 1) == (unanswered.returncode, unanswered.stdout, unanswered.stderr.count("\n"))
        assert "but not answered yet after 1 s: the order stands" in unanswered.stderr
        script = ordered(system, *stop, "--no-wait")
        assert (0, "") == (script.returncode, script.stderr)
        assert re.fullmatch("[0-9a-f]{32}\n", script.stdout)
        system.start()
        system.worker.wait_for_line("gateway simulated is stopped by .*: x")
        until(lambda: "(2 of 2 tasks)" in ordered(system, "gateways").stdout, "both tasks say so")
        system.submit([event])
        system.wait_answered()
        assert ("unknown", 0) == (system.all_results()[0]["status"], system.calls(event))
