"""SIGKILL at random moments, under load."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from support.system import Payments, Stream, System, WorkerProcess

KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills_at_random_moments_lose_nothing_and_double_nothing(
    workers: int, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Every fifth kill hits a start, the others hit work under way; then books, order, disk agree."""
    kill_at_random(broker, tmp_path, unique_name, workers=workers, kills=KILLS, seed=7 * workers)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_kills_of_three_workers_lose_nothing_and_double_nothing(
    seed: int, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The same for longer, with three workers over four partitions, with other moments."""
    kill_at_random(broker, tmp_path, unique_name, workers=3, kills=100, seed=100 + seed)


def kill_at_random(broker: str, folder: Path, name: str, *, workers: int, kills: int, seed: int) -> None:
    """Kill, start again, as long as payments stream in; then check everything."""
    print(f"seed {seed}")
    moments = random.Random(seed)
    began = time.monotonic()
    under_way = 0
    with System(broker, folder, name, workers=workers) as system:
        system.gateway.faults(latency_ms=20)
        system.start()
        with Stream(system, Payments(seed), chunk=25, ahead=150, most=kills * 1000):
            for number in range(kills):
                victim = moments.choice(system.workers)
                before = system.answered()
                if number % 5 == 4:
                    hit_a_start(victim, moments)
                else:
                    wait_for_work(system, before + moments.randrange(1, 120))
                    time.sleep(moments.uniform(0, 0.05))  # the random moment itself
                    under_way += system.answered() < system.sent
                victim.kill()
                victim.start()
        report = system.check()
        starts = sum(worker.starts for worker in system.workers)
    seconds = time.monotonic() - began
    print(f"{kills} kills, {under_way} under way, {report.events} events, {seconds:.0f} s, {starts} starts")
    assert under_way >= kills * 0.7
    assert report.resent > 0


def hit_a_start(victim: WorkerProcess, moments: random.Random) -> None:
    """Return while the victim, just started, joins the group or recovers its tasks."""
    said = moments.choice(("Joined group", "Executing _on_partitions_assigned", r"task \d+ runs"))
    victim.wait_for_line(said)
    time.sleep(moments.uniform(0, 0.1))


def wait_for_work(system: System, answered: int) -> None:
    """Return when so many events are answered: workers are at work again after the last kill."""
    system.wait_answered(answered)
