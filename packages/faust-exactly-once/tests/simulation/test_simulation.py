"""Tier 1: whole workers on a simulated Kafka, disk, network, clock; a seed decides everything.

`properties.py` states what must hold, `plan.py` what goes wrong. More seeds, or one with its whole trace:

    SIMULATION_SEEDS=20000 pytest packages/faust-exactly-once/tests/simulation -k no_schedule
    SIMULATION_SEED=4711 pytest packages/faust-exactly-once/tests/simulation -k no_schedule -s
"""

import gc
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from . import plan
from .mutants import MUTANTS, Mutant
from .traced import traced
from .world import World, play

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "600"))
ONE = os.environ.get("SIMULATION_SEED")
MOST_SEEDS_OF_A_MUTANT = 300
LONGEST_TRACE = 400  # lines shown
NAMED_ENDS = {
    "BatchSkipped", "FetchFailed", "KafkaUnavailable", "MembershipLost", "OffsetsMissing", "OutcomeUnknown",
    "RecordRefused", "StoreFailed", "TaskFenced",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def few_collections() -> Iterator[None]:
    """Each world leaves cycles behind; to look at everything else every time would double the time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


def collect_now_and_then(number: int) -> None:
    if number % 25 == 24:
        gc.collect()


def report(seed: int) -> str:
    """The seed again, with its trace."""
    world = play(seed, keep_trace=True)
    trace = world.clock.trace or []
    lines = [*world.plan.lines(), "...", *trace[-LONGEST_TRACE:], *world.clock.failures]
    again = f"SIMULATION_SEED={seed} .venv/bin/python -m pytest {Path(__file__).parent} -k no_schedule -s"
    return "\n".join([f"seed {seed} breaks a property", *lines, f"again: {again}"])


@pytest.mark.timeout(0 if "SIMULATION_SEEDS" in os.environ else 900)
def test_no_schedule_breaks_a_property() -> None:
    """Whatever fails whenever: nothing is lost or doubled, no unit is torn, everything drains."""
    if ONE is not None:
        print(report(int(ONE)))
    ends: Counter[str] = Counter()
    for seed in range(SEEDS) if ONE is None else [int(ONE)]:
        world = play(seed)
        assert not world.clock.failures, report(seed)
        ends += world.properties.ends
        collect_now_and_then(seed)
    if ONE is None and SEEDS >= 600:
        assert set() == NAMED_ENDS - set(ends), "the schedules have become too tame"


def digest(seed: int) -> str:
    """What a seed does, step by step."""
    world = play(seed, keep_trace=True)
    return hashlib.sha256("\n".join(world.clock.trace or []).encode()).hexdigest()


def test_a_seed_replays_exactly() -> None:
    """The same seed gives the same trace, whatever was played before."""
    seeds = range(20, 50)
    assert [digest(seed) for seed in seeds] == list(reversed([digest(seed) for seed in reversed(seeds)]))


def test_a_trace_changes_nothing() -> None:
    """The run that is shown is the run that failed."""
    for seed in range(50, 70):
        assert play(seed).clock.steps == play(seed, keep_trace=True).clock.steps


def test_a_failing_seed_is_shown_with_its_plan_and_the_way_to_play_it_again() -> None:
    """Whoever sees the failure needs nothing else."""
    with MUTANTS[0].installed():
        shown = report(next(seed for seed in range(50) if play(seed).clock.failures))
    assert "Feed(at_s=" in shown
    assert "PROPERTY" in shown
    assert "SIMULATION_SEED=" in shown


def test_a_seed_replays_in_another_process() -> None:
    """Neither addresses nor the order of sets decide anything."""
    tests = Path(__file__).parents[1]
    program = "from simulation.test_simulation import digest; print(*map(digest, range(20, 35)))"
    found = [
        subprocess.run(
            [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(tests)},
        ).stdout
        for hashes in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(8))
def test_no_schedule_breaks_a_property_on_rocksdb(seed: int, tmp_path: Path) -> None:
    """The same on real databases."""
    assert [] == play(seed, folder=tmp_path).clock.failures


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_defect_in_the_layer_is_found(mutant: Mutant) -> None:
    """A property breaks within a few seeds; where the search begins is where it was quick the last time."""
    for seed in range(mutant.first_seed, mutant.first_seed + MOST_SEEDS_OF_A_MUTANT):
        with mutant.installed():
            failures = play(seed, only=mutant.faults).clock.failures
        collect_now_and_then(seed)
        if failures:
            assert failures[0][0].isdigit(), f"no property, an accident: {failures[0]}"
            return
    raise AssertionError(f"{mutant.name} survives {MOST_SEEDS_OF_A_MUTANT} seeds")


def with_strays(seed: int, *, epoch_per_transaction: bool) -> list[str]:
    """Play a seed in which an EndTxn that was sent again arrives in a later transaction."""
    made = plan.make(seed, ("stray_end",))
    world = World(seed, replace(made, epoch_per_transaction=epoch_per_transaction, in_order=False))
    with traced(with_log=False):
        world.run()
    return world.clock.failures


def test_an_end_that_arrives_late_ends_no_later_transaction() -> None:
    """It does with the protocol before KIP-890, which no client can mend; it does not with an epoch each."""
    seeds = range(25, 55)
    assert any(with_strays(seed, epoch_per_transaction=False) for seed in seeds)
    assert not any(with_strays(seed, epoch_per_transaction=True) for seed in seeds)
