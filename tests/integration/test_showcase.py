"""The showcase's promises, each shown on the whole system as users start it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.showcases import ROOT, environment, nothing_left, pids_of, read_until, showcase

from processes.loopback import ask

PAYMENTS = 200
SYSTEM_PROCESSES = 4
"""Kafka, the gateway, two workers; each has a guard beside it."""


def refusal(folder: Path, **variables: str) -> tuple[int, list[str]]:
    """Exit code, lines of stderr of a run that is expected not to start."""
    command = [sys.executable, "-m", "showcase", "run", "--data", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, timeout=150,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


@pytest.mark.timeout(600)
def test_a_run_charges_every_payment_exactly_once(tmp_path: Path) -> None:
    """`make run` survives its SIGKILL, prints the books, exits with 0, leaves no process behind."""
    with showcase(tmp_path, "run", PAYMENTS=str(PAYMENTS)) as process:
        assert process.stdout is not None
        output = process.stdout.read()
    assert 0 == process.returncode, output
    assert f"{PAYMENTS} payments sent (10 % twice), each charged exactly once" in output.splitlines()[-1]
    assert "SIGKILL    worker-1" in output
    assert re.search(r"SIGKILLs survived +│ +1 │ +1 │ ok", output)
    assert re.search(rf"charges at the gateway, .+ +│ +{PAYMENTS} │ +{PAYMENTS} │ ok", output)
    assert [] == nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_three_brokers_survives_the_death_of_one(tmp_path: Path) -> None:
    """A broker is killed amid the payments, started again, in sync at the end; every payment charged once."""
    with showcase(tmp_path, "run", PAYMENTS="100", BROKERS="3") as process:
        assert process.stdout is not None
        output = process.stdout.read()
    assert 0 == process.returncode, output
    killed = re.search(r"(?m)^SIGKILL    (broker-[123]) \(pid (\d+), leads [23] of 8 partitions", output)
    assert killed is not None, output
    restarted = re.search(rf"(?m)^restart    {killed[1]} \(pid (\d+)\) on the same data folder", output)
    assert restarted is not None and restarted[1] != killed[2], output
    assert re.search(rf"(?m)^in sync    {killed[1]} holds every record again after", output), output
    assert "SIGKILL    worker-1" in output
    assert re.search(r"SIGKILLs survived +│ +2 │ +2 │ ok", output), output
    assert re.search(r"brokers with every record again +│ +3 │ +3 │ ok", output), output
    assert "100 payments sent (10 % twice), each charged exactly once" in output.splitlines()[-1]
    assert [] == nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_leaves_payments_open_says_which_and_why(tmp_path: Path, broker: str) -> None:
    """A gateway that answers nobody any more: no difference, exit code 3, how many wait where, since when."""
    limits = {"BILLING_GATEWAY_DEADLINE_S": "2", "BILLING_SESSION_TIMEOUT_S": "6"}
    with showcase(tmp_path, "run", PAYMENTS=str(PAYMENTS), KAFKA=broker, **limits) as process:
        lines = read_until(process, lambda line: line.startswith("gateway"))
        url = lines[-1].split()[1]
        read_until(process, lambda line: re.match(r"sent .* charged [1-9]", line))
        ask(f"{url}/_faults", {"timeout": 1, "timeout_ms": 20000})
        assert process.stdout is not None
        output = process.stdout.read()
    assert 3 == process.returncode, output
    assert re.search(r"(?m)^nothing differs: [1-9]\d* payments? (is|are) open; ", output)
    assert re.search(r"(?m)^  open: [1-9]\d* unknown at simulated \(.*\), the oldest since 20", output)
    assert re.search(r"payments still open +│ +0 │ +[1-9]\d* │ +open", output), output
    assert re.match(r"nothing differs, but \d+ payments? (is|are) open, see above", output.splitlines()[-1])
    assert [] == nothing_left(tmp_path)


@pytest.mark.timeout(600)
def test_ctrl_c_in_the_middle_of_a_run_leaves_nothing_behind(tmp_path: Path, broker: str) -> None:
    """SIGINT while payments flow ends every process, also on a broker of the user's own."""
    with showcase(tmp_path, "run", PAYMENTS="5000", KAFKA=broker) as process:  # far from its end
        read_until(process, lambda line: re.match(r"sent [1-9]", line))
        assert SYSTEM_PROCESSES <= len(pids_of(tmp_path))
        process.send_signal(signal.SIGINT)
        assert 128 + signal.SIGINT == process.wait(150)
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    assert [] == nothing_left(tmp_path)


@pytest.mark.timeout(600)
def test_a_killed_showcase_leaves_nothing_behind(tmp_path: Path, broker: str) -> None:
    """Even after SIGKILL, when it can do nothing itself, everything that it started ends."""
    with showcase(tmp_path, "run", PAYMENTS=str(PAYMENTS), KAFKA=broker) as process:
        read_until(process, lambda line: line.startswith("worker-2"))
        process.kill()
    assert [] == nothing_left(tmp_path)


def test_an_unreachable_broker_is_said_in_one_line(tmp_path: Path) -> None:
    """KAFKA that nobody answers gives one line that says what to do, exit code 1, no process."""
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        address = f"127.0.0.1:{closed_again.getsockname()[1]}"
    text = f"showcase: no Kafka broker answers at {address}: start it or correct KAFKA=host:port"
    assert (1, [text]) == refusal(tmp_path, KAFKA=address)
    assert [] == nothing_left(tmp_path)


@pytest.mark.parametrize("value", ["many", "0", "19", "-5", "1e3", "9999999"])
def test_a_wrong_number_of_payments_is_said_in_one_line(tmp_path: Path, value: str) -> None:
    """PAYMENTS must be a number that makes sense, checked before anything starts."""
    text = f"showcase: PAYMENTS={value!r} is not allowed: use a whole number from 20 to 1000000"
    assert (1, [text]) == refusal(tmp_path, PAYMENTS=value)


def test_a_wrong_broker_address_is_said_in_one_line(tmp_path: Path) -> None:
    """The variable that the user has set is the one that is named."""
    code, lines = refusal(tmp_path, KAFKA="no where")
    assert (1, 1) == (code, len(lines))
    assert lines[0].startswith("showcase: KAFKA='no where' is not allowed: ")


def test_missing_java_is_said_in_one_line(tmp_path: Path) -> None:
    """Without Java the run ends with the broker's own line."""
    text = "Java is missing: install Java 17 or newer, or use a broker of yours with KAFKA=host:port"
    assert (1, [f"showcase: {text}"]) == refusal(tmp_path, PATH=str(tmp_path))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A run removes what an earlier run left, nothing else."""
    (tmp_path / "letters.txt").write_text("keep")
    text = f"showcase: {tmp_path} holds something else: choose an empty folder with --data"
    assert (1, [text]) == refusal(tmp_path)
    assert "keep" == (tmp_path / "letters.txt").read_text()
