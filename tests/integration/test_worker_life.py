"""A worker beside trouble: no gateway, no broker for a while, another worker on its data folder, a stop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.system import Payments, System, free_port, payment
from support.until import until
from support.web_client import get

from broker import LocalBroker
from torture.markers import Repair

QUIET = ("Traceback", "%3|", "%4|", "Unclosed", "was never awaited", "never retrieved")
"""What has no place in the log of a worker that does what it should."""
STOPS_WITHIN_S = 30.0
"""Promised: 1.5 s for handlers, 1 s for the last commit (docs/operations.md); the rest is the machine's."""


@pytest.fixture
def system(broker: str, tmp_path: Path, unique_name: str) -> Any:
    """One worker, not yet started, with its gateway."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        yield system


def log_of(system: System) -> str:
    """What the worker has said in all its lives."""
    return system.worker.log_file.read_text()


def assert_quiet(system: System) -> None:
    """No stack trace, no line of a library that nobody asked for."""
    log = log_of(system)
    found = [word for word in QUIET if word in log]
    assert [] == found, log


def test_a_sigterm_ends_a_busy_worker_in_order(system: System) -> None:
    """Exit code 0 within a few seconds, no stack trace; what was under way is done after the next start."""
    system.gateway.faults(latency_ms=300)
    system.start()
    system.submit(Payments(seed=1).take(200))
    system.wait_answered(20)
    started = time.monotonic()
    assert 0 == system.worker.stop()
    assert time.monotonic() - started < STOPS_WITHIN_S
    assert_quiet(system)
    system.start()
    system.check()


def test_a_worker_uses_the_data_folder_of_an_earlier_release_and_says_so(
    system: System, tmp_path: Path, unique_name: str
) -> None:
    """Without --datadir: the tables and the intake's id are there, none of it begins anew elsewhere."""
    old, log = tmp_path / f"{unique_name}-data", tmp_path / "log"
    old.mkdir()
    with log.open("wb") as err:
        worker = subprocess.Popen(
            [*system.worker.program, "worker", f"--web-port={free_port()}"], cwd=tmp_path, stderr=err,
            env=system.worker.environment,
        )  # fmt: skip
    try:
        said = f"{old.name}, of an earlier release, is still used: move it to data/{unique_name} while"
        until(lambda: said in log.read_text(), "the worker says where its data is")
        until(lambda: (old / "v1" / "tables").is_dir(), "its tables are there")
    finally:
        worker.terminate()
        worker.wait(90)
    assert not (tmp_path / "data").exists()


def test_a_second_worker_on_a_data_folder_is_refused(system: System) -> None:
    """One line names the folder with its worker; that one goes on; after its SIGKILL another may start."""
    system.start()
    first = system.worker
    program = str(Path(sys.executable).with_name("streamsocial-billing"))
    command = [program, f"--datadir={first.datadir}", "worker"]
    second = subprocess.run(
        [*command, f"--web-port={free_port()}"], env=first.environment, capture_output=True, text=True,
        check=False, timeout=150,
    )  # fmt: skip
    expected = f"the data folder {first.datadir} is in use by the worker with pid {first.pid}: give each"
    assert (1, 1) == (second.returncode, len(second.stderr.splitlines())), second.stderr
    assert expected in second.stderr
    system.submit(Payments(seed=2).take(20))
    system.wait_answered()
    first.kill()
    system.start()  # SIGKILL leaves no lock behind
    system.check()


def test_a_worker_starts_without_a_gateway(system: System) -> None:
    """It is ready; a payment becomes `unknown`, with a clear line; it resolves once the gateway is there."""
    system.gateway.stop()
    system.start()
    _ready(system.worker.web_port, 200)
    system.submit([payment("u1", "p1")])
    system.wait_answered()
    [first] = system.results_of("p1")
    assert ("unknown", "gateway_unavailable", False) == (first["status"], first["reason"], first["resolves"])
    line = system.worker.wait_for_line(r"u1/p1 is unknown")
    assert f"127.0.0.1:{system.gateway.port}" in line
    _ready(system.worker.web_port, 200)
    system.gateway.start()
    assert system.results.wait(lambda: len(system.results_of("p1")) == 2)
    last = system.results_of("p1")[1]
    assert ("succeeded", True, False) == (last["status"], last["resolves"], last["replayed"])
    assert_quiet(system)
    system.check()


@pytest.mark.timeout(600)
def test_a_worker_outlives_its_broker(tmp_path: Path, unique_name: str) -> None:
    """It waits, says why in /ready, goes on when the broker is back; nothing is lost or double."""
    kafka = LocalBroker(tmp_path / "kafka", port=0)
    with kafka as own, System(own.bootstrap, tmp_path, unique_name) as system:
        system.start()
        payments = Payments(seed=3)
        system.submit(payments.take(100))
        system.wait_answered()  # a kill amid commits would meet what Kafka forgets then (docs/torture.md)
        system.gateway.faults(latency_ms=400)
        system.submit(payments.take(100))
        own.kill()  # amid gateway calls: their units meet a broker that is gone
        body = _ready(system.worker.web_port, 503)
        assert [] == [task for task in body["tasks"] if task["state"] != "running" and not task["why"]]
        assert system.worker.running
        own.start()
        system.gateway.faults()
        system.submit(payments.take(50))
        with_an_operator(system, own)
        assert_quiet(system)
        system.check()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("answered", [5, 20, 40, 60, 80])
def test_a_broker_that_is_killed_amid_commits_takes_nothing_back(
    answered: int, tmp_path: Path, unique_name: str
) -> None:
    """What was committed stays, also where Kafka forgets its end; nothing is lost or double."""
    kafka = LocalBroker(tmp_path / "kafka", port=0)
    with kafka as own, System(own.bootstrap, tmp_path, unique_name) as system:
        system.start()
        payments = Payments(seed=answered)
        system.submit(payments.take(100))
        assert system.results.wait(lambda: system.answered() >= answered)
        own.kill()
        own.start()
        system.submit(payments.take(50))
        with_an_operator(system, own)
        system.check()


def with_an_operator(system: System, kafka: LocalBroker) -> None:
    """Return when every event is answered.

    Kafka 4.4.0 now and then forgets the end marker of a transaction when it restarts, so that the partition
    hangs for ever, whoever writes to it. The task names the place and waits; the marker is written here.
    """
    operator = Repair(kafka.data_dir / "log", kafka.port)
    for _ in range(90):
        if system.results.wait(lambda: system.answered() >= system.sent, 2.0):
            return
        for marker in operator.run_once():
            print(f"forgotten by Kafka: {marker}")
    system.wait_answered(within_s=1)


def _ready(port: int, status: int) -> Any:
    """The body of /ready once it has this status."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = get(port, "/ready")
        if answer.status == status:
            return json.loads(answer.body)
        time.sleep(0.1)
    raise AssertionError(f"/ready is never {status}: {answer.body!r}")
